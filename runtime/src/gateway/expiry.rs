//! The deadlines of connections, which are checked at each tick: the deadline for connect_request, and the expiry of a
//! token. The expiry is also checked before each request, because a client that sends requests without a pause has a
//! running handler at every tick.
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rollcall_schema::SessionError;

use super::{
    Gateway,
    peer::{Peer, PeerState},
};
use rollcall_websocket::{Socket, Sockets};

/// The close code for clients that got no message and should come back.
const RECONNECT: u16 = SessionError::InternalServerError.close_code();

impl Gateway {
    /// Returns when a connection that opens now must have sent connect_request, in the form of [`Peer::expires`].
    pub(super) fn connect_deadline(&self) -> u64 {
        millis(self.started.elapsed() + self.options.connect_timeout)
    }

    /// Closes the connection of a client that was let in if its token has expired. Returns whether the token has
    /// expired.
    pub(super) fn end_expired(&mut self, socket: &mut Socket<'_, Peer>) -> bool {
        let expired = socket.peer.expires <= unix_millis();
        if expired {
            self.end(socket, SessionError::TokenExpired);
        }
        expired
    }

    /// Closes connections that did not send connect_request in time, and connections whose token has expired and whose
    /// handler is done.
    pub(super) fn close_expired(&mut self, sockets: &mut Sockets<Peer>, now: Instant) {
        let date = unix_millis();
        let age = millis(now.saturating_duration_since(self.started));
        sockets.each(|socket| match socket.peer.state {
            // A transport that left its first namespace stays open for its other namespaces.
            PeerState::AwaitingConnect(_) if socket.carries() => socket.peer.expires = self.socketio_deadline(),
            PeerState::AwaitingConnect(_) if socket.peer.expires <= age => self.end(socket, SessionError::AuthTimedOut),
            PeerState::Open(_) if socket.peer.expires <= date => self.end(socket, SessionError::TokenExpired),
            PeerState::Outside(_) if socket.peer.expires <= date => self.end(socket, SessionError::TokenExpired),
            PeerState::Refused(_) if socket.peer.expires <= age => socket.close(RECONNECT, None),
            PeerState::AwaitingConnect(_)
            | PeerState::Connecting(_)
            | PeerState::Open(_)
            | PeerState::Outside(_)
            | PeerState::Refused(_)
            | PeerState::Busy => {}
        });
    }
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
