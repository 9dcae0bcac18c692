//! The application that runs on the sockets, and what the layer tells it about them.
use std::{net::SocketAddr, time::Instant};

use hyper::http::{header::AsHeaderName, request::Parts};

use crate::{
    close::{Cause, CloseNotice},
    id::SocketId,
    message_decoder::Message,
    socket_io::SocketIo,
    sockets::{Socket, Sockets},
};

/// An application on this layer. Each worker has one of its own, and calls it only from its task, so the application
/// needs no locks and must never block. For every `opened` there is exactly one `closed`, after which the layer ends
/// the connection by itself.
pub trait Application: Sized + Send + 'static {
    /// The application's state of one connection, kept in the connection's slab entry.
    type Peer: Send + 'static;
    /// The commands that other tasks send to the worker.
    type Command: Send + 'static;

    /// Handles a client that has upgraded, or has begun an Engine.IO session by long-polling ([`SocketIo::framing`]).
    /// The application may already send on the connection and close it.
    fn opened(&mut self, socket: &mut SocketIo<'_>, upgrade: Upgrade) -> Self::Peer;

    /// Handles a complete message, which is unmasked, and in valid UTF-8 if it is text.
    fn message(&mut self, socket: &mut Socket<'_, Self::Peer>, message: Message<'_>);

    /// Handles a complete message on a connection that speaks Engine.IO. The message may be for another connection that
    /// its transport carries ([`Sockets::carry`]).
    fn engine_message(&mut self, sockets: &mut Sockets<Self::Peer>, id: SocketId, message: Message<'_>) {
        if let Some(mut socket) = sockets.get_mut(id) {
            self.message(&mut socket, message);
        }
    }

    /// Handles a command from the inbox.
    fn command(&mut self, sockets: &mut Sockets<Self::Peer>, command: Self::Command);

    /// Flushes output. This is called when all commands and socket events that were ready have been handled, so that
    /// their output can be sent with one write.
    fn flush(&mut self, sockets: &mut Sockets<Self::Peer>) {
        let _ = sockets;
    }

    /// Handles a tick. This is called once a second, after pings and deadlines were checked.
    fn tick(&mut self, sockets: &mut Sockets<Self::Peer>, now: Instant) {
        let _ = (sockets, now);
    }

    /// Returns how to ping a client that is due. After the ping the client must send something in time, of any kind.
    fn ping(&mut self, peer: &mut Self::Peer) -> Ping {
        let _ = peer;
        Ping::Frame
    }

    /// Returns the last message for a client that the layer closes, because of [`Cause::SlowConsumer`],
    /// [`Cause::PongTimedOut`], or [`Cause::ClosedByServer`] when the workers shut down.
    fn close_notice(&mut self, peer: &Self::Peer, cause: Cause) -> CloseNotice {
        let _ = peer;
        let code = if cause == Cause::ClosedByServer { 1001 } else { 1008 };
        CloseNotice { close: code.into(), text: None }
    }

    /// Handles the end of a connection. This is called as soon as the end is decided. The close handshake may go on
    /// afterwards.
    fn closed(&mut self, sockets: &mut Sockets<Self::Peer>, id: SocketId, peer: Self::Peer, cause: Cause);
}

/// How a client is asked whether it is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ping {
    /// The client is not pinged, because the application has its own deadline for it.
    No,
    /// A ping frame, which a browser answers without telling its page.
    Frame,
    /// A text message, which the page sees and answers.
    Text(Vec<u8>),
}

/// The request that became a connection.
#[derive(Debug)]
pub struct Upgrade {
    /// The client's address: from a header of the PROXY protocol if there is one, and otherwise that of the TCP
    /// connection.
    pub remote: SocketAddr,
    /// The request's head, with the extensions that [`crate::HttpHooks`] added.
    pub head: Box<Parts>,
}

impl Upgrade {
    /// Returns the query string, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// Returns a header's value, if it is visible ASCII.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}
