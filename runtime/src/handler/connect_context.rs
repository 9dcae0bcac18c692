//! What `connect` is given of a connection that sent connect_request.
use rollcall_schema::{LessonId, Sid};
use rollcall_websocket::SocketId;

use crate::limits::network::Subscriber;

/// A connection that asks to be let in.
#[derive(Debug)]
pub struct ConnectContext {
    /// The socket, for entering rooms.
    pub socket: SocketId,
    /// The connection's id outside.
    pub sid: Sid,
    /// Its address, where the connections of addresses are limited.
    pub client: Option<Subscriber>,
    /// `lesson_id` of the upgrade request's query.
    pub asked: Option<LessonId>,
}
