//! What `connect` is given of a connection that sent its first event.
use rollcall_schema::{ResumeId, Sid, TraceParent};
use rollcall_websocket::SocketId;

use crate::{auth::Claims, limits::network::Subscriber, trace};

/// A connection that asks to be let in.
#[derive(Debug)]
pub struct ConnectContext {
    /// The socket, for entering rooms.
    pub socket: SocketId,
    /// The connection's id outside.
    pub sid: Sid,
    /// Its address, where the connections of addresses are limited.
    pub client: Option<Subscriber>,
    /// The value of the URL's parameter that the table names ([`Table::url_parameter`](crate::Table::url_parameter)).
    pub url_parameter: Option<Box<str>>,
    /// The trace that the connection belongs to.
    pub trace: Option<TraceParent>,
    /// What its token says, where that was checked already.
    pub claims: Option<Claims>,
    /// The id under which it finds its session again after a break.
    pub resume_id: Option<ResumeId>,
}

impl ConnectContext {
    /// What the session's events carry: the span of the handler that runs, or else what came with the connection.
    #[must_use]
    pub fn outgoing_trace(&self) -> Option<TraceParent> {
        trace::outgoing(self.trace)
    }
}
