//! The state of a long-polling session.
use rollcall_socketio::engine::RequestError;
use tokio::sync::oneshot;

use crate::id::SocketId;

/// What a session has while its packets go by long-polling.
#[derive(Debug)]
pub(crate) struct PollingSession {
    /// The socket that the session's id names; it stays when the socket is renewed.
    pub(crate) named: SocketId,
    /// The GET that waits for packets.
    pub(crate) get: Option<ParkedGet>,
    /// A POST's body is being read, or handled.
    pub(crate) posting: bool,
    /// The body of a POST, while its messages are being handled.
    pub(crate) post: Option<Post>,
    /// A WebSocket has asked whether it may take over: GETs are answered at once, so that the client can stop polling.
    pub(crate) probed: bool,
}

impl PollingSession {
    pub(crate) fn new(named: SocketId) -> Self {
        Self { named, get: None, posting: false, post: None, probed: false }
    }
}

/// A GET that waits.
#[derive(Debug)]
pub(crate) struct ParkedGet {
    pub(crate) id: SocketId,
    /// Lines of its response's head.
    pub(crate) headers: Box<str>,
}

/// The packets of a POST.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) body: String,
    /// How much of it has been handled.
    pub(crate) handled: usize,
    pub(crate) answer: oneshot::Sender<Result<(), RequestError>>,
}

/// A WebSocket that is to become the transport of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) id: SocketId,
    /// The tick at which it is closed.
    pub(crate) deadline: u32,
}
