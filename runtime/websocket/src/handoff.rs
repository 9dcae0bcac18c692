//! What the listener hands to a worker: a connected socket, and its TLS session.
use rustls::ServerConnection;

/// A socket on its way to a worker.
#[derive(Debug)]
pub struct Handoff {
    /// The non-blocking socket.
    pub(crate) stream: std::net::TcpStream,
    /// The TLS session after its handshake. `None` for plain TCP.
    pub(crate) session: Option<Box<ServerConnection>>,
}

impl From<std::net::TcpStream> for Handoff {
    fn from(stream: std::net::TcpStream) -> Self {
        Self { stream, session: None }
    }
}
