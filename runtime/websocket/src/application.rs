//! What runs on the sockets, and what it hears from them.
use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use hyper::http::{header::AsHeaderName, request::Parts};

use super::{Socket, SocketId, SocketIo, Sockets, Violation};

/// An application of the layer; one value a worker, called by that worker's task only, so it needs no locks and must
/// never block. For every `opened` there is exactly one `closed`, after which the layer ends the connection by itself.
pub trait Application: Sized + Send + 'static {
    /// State of one connection, kept in the connection's own slab entry.
    type Peer: Send + 'static;
    /// What other tasks send to the worker.
    type Command: Send + 'static;

    /// A client has upgraded. Sending and closing are allowed already.
    fn opened(&mut self, socket: &mut SocketIo<'_>, upgrade: Upgrade) -> Self::Peer;

    /// A whole message, unmasked and, if text, valid UTF-8.
    fn message(&mut self, socket: &mut Socket<'_, Self::Peer>, message: Message<'_>);

    /// A command out of the inbox.
    fn command(&mut self, sockets: &mut Sockets<Self::Peer>, command: Self::Command);

    /// After all commands and socket events that were ready: the moment to send what they left behind in one piece.
    fn flush(&mut self, sockets: &mut Sockets<Self::Peer>) {
        let _ = sockets;
    }

    /// Each tick (1 s), after the sweep of pings.
    fn tick(&mut self, sockets: &mut Sockets<Self::Peer>, now: Instant) {
        let _ = (sockets, now);
    }

    /// Whether a silent client is pinged already; not where it has a deadline of the application's own to begin with.
    fn expects_life(peer: &Self::Peer) -> bool {
        let _ = peer;
        true
    }

    /// The last words to a client whom the layer itself is about to close: [`Cause::SlowConsumer`],
    /// [`Cause::PongTimedOut`], or [`Cause::Ours`] when the workers shut down.
    fn farewell(&mut self, cause: Cause) -> CloseNotice {
        let code = if cause == Cause::Ours { 1001 } else { 1008 };
        CloseNotice { close: code.into(), text: None }
    }

    /// The connection is over, as soon as that is decided; the close handshake may go on without the application.
    fn closed(&mut self, sockets: &mut Sockets<Self::Peer>, id: SocketId, peer: Self::Peer, cause: Cause);
}

/// A message of a client, borrowed from the worker's scratch where possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Only where [`super::SocketOptions::binary`] allows it.
    Binary(&'a [u8]),
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client sent a close frame.
    Closed,
    /// The socket broke, or ended without a close frame.
    Lost,
    /// No frame within the pong timeout.
    PongTimedOut,
    /// The client broke RFC 6455 or a limit; it has been sent the violation's close code.
    Violation(Violation),
    /// The client does not take what is sent to it.
    SlowConsumer,
    /// The application closed it, or the workers shut down.
    Ours,
}

/// What a close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Its code.
    pub code: u16,
    /// Its reason, at most 123 bytes.
    pub reason: &'static str,
}

impl From<u16> for Close {
    fn from(code: u16) -> Self {
        Self { code, reason: "" }
    }
}

/// A last text message, and the close frame behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseNotice {
    /// The close frame.
    pub close: Close,
    /// The payload (not yet a frame) of a text message before it.
    pub text: Option<Bytes>,
}

/// The request that became a connection.
#[derive(Debug)]
pub struct Upgrade {
    /// The client's address, as a header of the PROXY protocol says it; else the nearest proxy's, behind one.
    pub remote: SocketAddr,
    /// The request's head; its extensions carry whatever the listener's [`super::HttpHooks`] put there.
    pub head: Box<Parts>,
}

impl Upgrade {
    /// The query string, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// A header's value, where it is visible ASCII.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}
