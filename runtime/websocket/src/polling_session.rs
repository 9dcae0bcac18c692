//! The state of a session while it uses long-polling.
use rollcall_socketio::engine::RequestError;
use tokio::sync::oneshot;

use crate::id::SocketId;

/// The state of a session while its packets are sent by long-polling.
#[derive(Debug)]
pub(crate) struct PollingSession {
    /// The socket that the session's id names. It stays the same when the socket is renewed.
    pub(crate) named: SocketId,
    /// The GET that waits for packets.
    pub(crate) get: Option<ParkedGet>,
    /// Whether a POST's body is being read or handled.
    pub(crate) posting: bool,
    /// The body of a POST while its messages are being handled.
    pub(crate) post: Option<Post>,
    /// Whether a WebSocket has asked to take over. Then GETs are answered at once, so that the client can stop polling.
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
    /// Lines for the head of the response.
    pub(crate) headers: Box<str>,
}

/// The packets of a POST.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) body: String,
    /// The number of bytes of the body that have been handled.
    pub(crate) handled: usize,
    pub(crate) answer: oneshot::Sender<Result<(), RequestError>>,
}

/// A WebSocket that is to become the transport of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) id: SocketId,
    /// The socket that the session's id names.
    pub(crate) named: SocketId,
    /// The tick at which the WebSocket is closed.
    pub(crate) deadline: u32,
}
