//! A worker's part of a drain (PROTOCOL 2, "Drain, make before break").
//!
//! Invariant: a client gets `terminated` once, after connect_success; its connection is served until it is closed.
use std::time::Duration;

use rollcall_schema::SessionError;

use super::{
    Gateway,
    dialect::Dialect,
    peer::{Peer, PeerState},
};
use rollcall_websocket::{Socket, Sockets};

impl Gateway {
    /// Tells `count` more clients that the node drains. Connections without connect_request are closed: they have nothing
    /// that would break. Clients whose connect runs are told after its answer ([`Gateway::announce_to`]).
    pub(super) fn announce_drain(&mut self, sockets: &mut Sockets<Peer>, mut count: usize, within: Duration) {
        self.draining = true;
        self.reconnect_within = within;
        sockets.each(|socket| {
            if count == 0 || socket.peer.knows_of_drain || matches!(socket.peer.state, PeerState::Connecting) {
                return;
            }
            count -= 1;
            match socket.peer.state {
                PeerState::AwaitingConnect(_) | PeerState::Outside(_) | PeerState::Refused => {
                    self.end(socket, SessionError::Terminated);
                }
                PeerState::Connecting | PeerState::Busy | PeerState::Open(_) => self.announce_to(socket),
            }
        });
    }

    /// Tells one client. Those of Socket.IO connect elsewhere only once their connection is closed.
    pub(super) fn announce_to(&mut self, socket: &mut Socket<'_, Peer>) {
        if socket.peer.dialect != Dialect::Plain {
            return self.end(socket, SessionError::Terminated);
        }
        socket.peer.knows_of_drain = true;
        socket.send_text(&self.last_message(SessionError::Terminated, None));
    }

    /// Closes `count` connections.
    pub(super) fn close_some(&mut self, sockets: &mut Sockets<Peer>, mut count: usize, within: Duration) {
        self.reconnect_within = within;
        sockets.each(|socket| {
            if count > 0 {
                count -= 1;
                self.end(socket, SessionError::Terminated);
            }
        });
    }
}
