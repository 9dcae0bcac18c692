//! A worker's part of a drain (PROTOCOL 2, "Drain, make before break").
//!
//! Invariant: a client hears `terminated` once, after connect_success; its connection is served until it is closed.
use std::time::Duration;

use rollcall_schema::SessionError;

use super::{Gateway, Peer, peer::PeerState};
use rollcall_websocket::{Socket, Sockets};

impl Gateway {
    /// Tells so many more clients that the node drains. Connections without connect_request are closed: they have nothing
    /// that would break. Those whose connect runs hear it after its answer ([`Gateway::announce`]).
    pub(super) fn announce_drain(&mut self, sockets: &mut Sockets<Peer>, mut count: usize, within: Duration) {
        self.draining = true;
        self.reconnect_within = within;
        sockets.each(|socket| {
            if count == 0 || socket.peer.told || matches!(socket.peer.phase, PeerState::Connecting) {
                return;
            }
            count -= 1;
            match socket.peer.phase {
                PeerState::ConnectContext(_) => self.end(socket, SessionError::Terminated),
                PeerState::Connecting | PeerState::Busy | PeerState::Open(_) => self.announce(socket),
            }
        });
    }

    /// Tells one client.
    pub(super) fn announce(&self, socket: &mut Socket<'_, Peer>) {
        socket.peer.told = true;
        socket.send_text(&self.last_words(SessionError::Terminated, None));
    }

    /// Closes so many connections.
    pub(super) fn dismiss(&mut self, sockets: &mut Sockets<Peer>, mut count: usize, within: Duration) {
        self.reconnect_within = within;
        sockets.each(|socket| {
            if count > 0 {
                count -= 1;
                self.end(socket, SessionError::Terminated);
            }
        });
    }
}
