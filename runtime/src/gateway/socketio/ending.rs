//! Session errors of Socket.IO: what a client is told, and when its transport is closed.
//!
//! Invariant: an unrecoverable error is final for the client (CONNECT_ERROR or DISCONNECT). A recoverable error closes
//! the transport, after which the client comes back. All other connections on that transport are lost too. So if a
//! CONNECT exceeds a limit on a transport with other connections, it is refused with CONNECT_ERROR. Otherwise the other
//! connections would be lost, the client would connect them again, and the next CONNECT would exceed the same limit.
use std::time::Duration;

use rollcall_schema::{SessionError, socketio};
use rollcall_socketio::Kind;

use super::super::{
    Gateway,
    closing::close,
    dialect::event_packet,
    expiry::millis,
    peer::{Peer, PeerState},
};
use crate::{limits::Payer, rooms::Namespace};
use rollcall_websocket::{Cause, Socket};

/// The longest time until the transport of a client is closed that was not let in and should come back. The delay is
/// needed because a new connection resets the pauses between the client's tries.
const REFUSED_FOR: Duration = Duration::from_secs(5);

impl Gateway {
    /// Tells a client why its session ends or does not begin.
    pub(in super::super) fn end_socketio(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        namespace: Namespace,
        error: SessionError,
        detail: Option<&str>,
    ) {
        if socket.peer.is_connected() {
            let event = self.last_event(socket.peer, namespace, error, detail);
            if error.is_recoverable() {
                return socket.close(close(error), event.as_deref());
            }
            event.into_iter().for_each(|event| socket.send_text(&event));
            self.send_packet(socket, namespace, Kind::Disconnect, b"");
            return self.leave_namespace(socket, Cause::ClosedByServer);
        }
        let waiting = match &mut socket.peer.state {
            PeerState::Connecting(waiting) if error != SessionError::Terminated => waiting.take(),
            _ => return socket.close(close(error), None),
        };
        // No session ends, and the next session must not have these values.
        (socket.peer.closed_by_us, socket.peer.ends_finally) = (None, false);
        self.enumeration.connection_ended(socket.id());
        if let Some(waiting) = &waiting {
            waiting.waits(socket.id());
        }
        let error = self.counted(error, socket.peer);
        let alone = !socket.is_carried() && !socket.carries();
        if error.is_recoverable() && (alone || error != SessionError::TooManyRequests) {
            socket.peer.state = PeerState::Refused(waiting);
            socket.peer.expires = millis(self.started.elapsed() + self.reconnect_after(REFUSED_FOR));
            return;
        }
        self.send_connect_error(socket, namespace, error, detail);
        if socket.is_carried() {
            socket.peer.state = PeerState::Refused(None);
            return socket.end_carried(Cause::ClosedByServer);
        }
        // The first refusal sets the deadline. Otherwise a client that is never let in could stay for ever.
        let deadline = self.socketio_deadline();
        let state = socket.peer.cold_mut().socketio.get_or_insert_default();
        socket.peer.expires = *state.connect_by.get_or_insert(deadline);
        socket.peer.state = PeerState::AwaitingConnect(waiting);
    }

    /// Tells a client that it is not let into a namespace.
    pub(super) fn send_connect_error(
        &self,
        transport: &mut Socket<'_, Peer>,
        namespace: Namespace,
        error: SessionError,
        detail: Option<&str>,
    ) {
        let payload = error.payload_with(self.reconnect_after(self.reconnect_within), detail);
        let data = [br#"{"message":""#, error.name().as_bytes(), br#"","data":"#, &payload[..], b"}"].concat();
        self.send_packet(transport, namespace, Kind::ConnectError, &data);
    }

    /// Counts an unrecoverable error as an event of a guest from the client's address. If no event is left for the
    /// address, the client gets [`SessionError::TooManyRequests`] instead, so that one transport permits no more tries
    /// than plain WebSockets do.
    fn counted(&self, error: SessionError, peer: &Peer) -> SessionError {
        let is_one_too_many =
            !error.is_recoverable() && self.shared.events.request(Payer::Guest(peer.client())).is_err();
        if is_one_too_many { SessionError::TooManyRequests } else { error }
    }

    /// Returns the event that tells a client of a session error. Returns `None` if the client's CONNECT is not answered
    /// yet, or if the client was told of the drain already.
    pub(in super::super) fn last_event(
        &self,
        peer: &Peer,
        namespace: Namespace,
        error: SessionError,
        detail: Option<&str>,
    ) -> Option<Vec<u8>> {
        let tells = peer.is_connected() && !(error == SessionError::Terminated && peer.knows_of_drain);
        let payload = error.payload_with(self.reconnect_after(self.reconnect_within), detail);
        tells.then(|| event_packet(self.shared.rooms.namespaces(), namespace, socketio::SESSION_ERROR, &payload))
    }
}
