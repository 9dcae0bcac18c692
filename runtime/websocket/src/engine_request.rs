//! Requests of a listener to the worker of an Engine.IO session.
use bytes::Bytes;
use rollcall_socketio::engine::RequestError;
use tokio::sync::oneshot;

use crate::{application::Upgrade, handoff::Handoff, id::SocketId, polling_session::Post};

/// A request to the worker of an Engine.IO session. The session's id names the socket, and so the worker.
#[derive(Debug)]
pub(crate) enum EngineRequest {
    /// Begins a session by long-polling. The answer is its first packet. `None` if there is no room.
    Open { upgrade: Upgrade, answer: oneshot::Sender<Option<String>> },
    /// A GET that the worker answers itself. The lines are for the head of the response. `is_followed` if the next
    /// request has already come on the same connection.
    Get { named: SocketId, handoff: Handoff, headers: Box<str>, is_followed: bool },
    /// A POST whose body is still to be read.
    PostBegins { named: SocketId, answer: oneshot::Sender<Result<(), RequestError>> },
    /// The body of a POST.
    Post { named: SocketId, post: Post },
    /// A POST that ends without its body. If its connection broke, the session ends.
    PostFailed { named: SocketId, broke: bool },
    /// A WebSocket that is to become the session's transport.
    Probe { named: SocketId, handoff: Handoff, unread: Bytes },
}
