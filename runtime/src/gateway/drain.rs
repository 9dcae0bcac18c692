//! A worker's part of a drain (PROTOCOL 2, "Drain, make before break").
//!
//! Invariant: a client gets `terminated` once, after connect_success. Its connection is served until it is closed.
//! Clients of Socket.IO are told when the drain begins, because they connect to another node only after their
//! connection was closed.
use std::time::Duration;

use rollcall_schema::SessionError;

use super::{
    Gateway,
    closing::note_end,
    dialect::Dialect,
    peer::{Peer, PeerState},
};
use rollcall_websocket::{Socket, SocketId, Sockets};

impl Gateway {
    /// Tells `count` more clients that the node drains. Connections without connect_request are closed, because their
    /// clients lose nothing. Clients whose connect runs are told after its answer ([`Gateway::announce_to`]).
    pub(super) fn announce_drain(&mut self, sockets: &mut Sockets<Peer>, mut count: usize, within: Duration) {
        self.begin_drain(sockets, within);
        let mut shared = Vec::new();
        sockets.each(|socket| {
            let is_done = socket.peer.dialect == Dialect::Plain && socket.peer.knows_of_drain;
            if count == 0 || is_done || matches!(socket.peer.state, PeerState::Connecting(_)) {
                return;
            }
            // A carried connection is told together with its transport's own connection.
            if socket.is_carried() {
                return;
            }
            count -= 1;
            if socket.carries() {
                return shared.push(socket.id());
            }
            match socket.peer.state {
                PeerState::AwaitingConnect(_) | PeerState::Outside(_) | PeerState::Refused(_) => {
                    self.end(socket, SessionError::Terminated);
                }
                PeerState::Connecting(_) | PeerState::Busy | PeerState::Open(_) => self.announce_to(socket),
            }
        });
        shared.into_iter().for_each(|transport| self.end_on(sockets, transport, SessionError::Terminated));
    }

    /// Tells the clients of Socket.IO that the node drains, once. Their transports are closed later, one after the other.
    fn begin_drain(&mut self, sockets: &mut Sockets<Peer>, within: Duration) {
        self.reconnect_within = within;
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        sockets.each(|socket| {
            if let Dialect::SocketIo(namespace) = socket.peer.dialect
                && let Some(event) = self.last_event(socket.peer, namespace, SessionError::Terminated, None)
            {
                socket.peer.knows_of_drain = true;
                socket.send_text(&event);
            }
        });
    }

    /// Tells a client the error in each of its namespaces on one transport, and closes the transport.
    fn end_on(&mut self, sockets: &mut Sockets<Peer>, transport: SocketId, error: SessionError) {
        if let Some(mut first) = sockets.get_mut(transport)
            && let Dialect::SocketIo(namespace) = first.peer.dialect
        {
            note_end(first.peer, error);
            let event = self.last_event(first.peer, namespace, error, None);
            event.into_iter().for_each(|event| first.send_text(&event));
        }
        // The transport closes when these connections have ended.
        for id in sockets.carried(transport).to_vec() {
            if let Some(mut socket) = sockets.get_mut(id) {
                self.end(&mut socket, error);
            }
        }
    }

    /// Ends the connections of `count` transports with an error after which their clients come back.
    pub(super) fn end_some(&mut self, sockets: &mut Sockets<Peer>, mut count: usize, error: SessionError) {
        let mut shared = Vec::new();
        sockets.each(|socket| {
            if count == 0 || socket.is_carried() {
                return;
            }
            count -= 1;
            if socket.carries() { shared.push(socket.id()) } else { self.end(socket, error) }
        });
        shared.into_iter().for_each(|transport| self.end_on(sockets, transport, error));
    }

    /// Tells a client that connects during the drain that the node drains. If the client speaks Socket.IO, its
    /// connection is closed at once.
    pub(super) fn announce_to(&mut self, socket: &mut Socket<'_, Peer>) {
        if socket.peer.dialect != Dialect::Plain {
            return self.end(socket, SessionError::Terminated);
        }
        socket.peer.knows_of_drain = true;
        socket.send_text(&self.last_message(SessionError::Terminated, None));
    }

    /// Closes `count` connections.
    pub(super) fn close_some(&mut self, sockets: &mut Sockets<Peer>, count: usize, within: Duration) {
        self.begin_drain(sockets, within);
        self.end_some(sockets, count, SessionError::Terminated);
    }
}
