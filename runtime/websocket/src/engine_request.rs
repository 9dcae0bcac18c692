//! What a listener asks of the worker of an Engine.IO session.
use bytes::Bytes;
use rollcall_socketio::engine::RequestError;
use tokio::sync::oneshot;

use crate::{application::Upgrade, handoff::Handoff, id::SocketId, polling_session::Post};

/// What a listener asks of the worker of an Engine.IO session, which is named by the socket in the session's id.
#[derive(Debug)]
pub(crate) enum EngineRequest {
    /// A new session by long-polling. The answer is its first packet; none where there is no room.
    Open { upgrade: Upgrade, answer: oneshot::Sender<Option<String>> },
    /// A GET, which is answered by the worker itself. The lines are for its response's head.
    Get { named: SocketId, handoff: Handoff, headers: Box<str> },
    /// A POST has come, whose body is still to be read.
    PostBegins { named: SocketId, answer: oneshot::Sender<Result<(), RequestError>> },
    /// The body of a POST.
    Post { named: SocketId, post: Post },
    /// A POST that ends without its body. Where its connection broke, the session ends.
    PostFailed { named: SocketId, broke: bool },
    /// A WebSocket that is to become the session's transport.
    Probe { named: SocketId, handoff: Handoff, unread: Bytes },
}
