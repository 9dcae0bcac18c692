//! The packets of a client: the namespace of each packet, the packets that are requests, and the packets that the
//! gateway answers itself.
use rollcall_schema::{KickCause, LeftReason, SessionError, request::PayloadError, socketio::Auth};
use rollcall_socketio::{Attachments, Event, Kind, Malformed, Packet};

use super::super::{
    Gateway,
    closing::close,
    dialect::{self, Dialect},
    peer::{Peer, PeerState, SocketIoState},
};
use crate::{
    limits::{Payer, RateDecision},
    rooms::Namespace,
};
use rollcall_base::names;
use rollcall_websocket::{Cause, Close, Message, Socket, SocketId, Sockets};

/// How many namespaces one transport carries.
const MAX_NAMESPACES: usize = 4;

/// The answer to a client that asks for an unknown namespace.
const INVALID_NAMESPACE: &str = r#"{"message":"Invalid namespace"}"#;

/// The answer to a client that asks for one namespace more than a transport carries.
const TOO_MANY_NAMESPACES: &[u8] = br#"{"message":"at most 4 namespaces a connection: use forceNew"}"#;

impl Gateway {
    /// Handles a message on a transport of Socket.IO. A message that is not a packet closes the transport, as in the
    /// reference implementation.
    pub(in super::super) fn on_socketio_message(
        &mut self,
        sockets: &mut Sockets<Peer>,
        transport: SocketId,
        message: Message<'_>,
    ) {
        let handled = match message {
            Message::Text(text) => self.on_packet(sockets, transport, text),
            Message::Binary(data) => self.on_attachment(sockets, transport, data),
        };
        if handled.is_err()
            && let Some(mut socket) = sockets.get_mut(transport)
        {
            let reason = LeftReason::Kicked(Some(KickCause::Violation));
            metrics::counter!(names::DISCONNECTS, "reason" => reason.as_str()).increment(1);
            socket.peer.closed_by_us = Some(reason);
            socket.close(Close { code: 1002, reason: "malformed packet" }, None);
        }
    }

    fn on_packet(&mut self, sockets: &mut Sockets<Peer>, transport: SocketId, text: &str) -> Result<(), Malformed> {
        let packet = Packet::parse(text)?;
        let Some(carrier) = sockets.get_mut(transport) else { return Ok(()) };
        if socketio_state(carrier.peer).is_some_and(|state| state.attachments.is_some()) {
            return Err(Malformed);
        }
        let named = self.shared.rooms.namespaces().find(packet.namespace);
        if packet.kind == Kind::Connect {
            return self.on_connect_packet(sockets, transport, named, &packet);
        }
        let Some(id) = named.and_then(|named| in_namespace(sockets, transport, named)) else {
            return outside_namespace(sockets, transport);
        };
        let event = match packet.kind {
            Kind::Event | Kind::BinaryEvent if !packet.data.is_empty() => Some(Event::parse(packet.data)?),
            _ => None,
        };
        match packet.kind {
            Kind::BinaryEvent | Kind::BinaryAck => {
                let attachments = Attachments::new(text, &packet, self.options.max_message)?;
                return self.on_attachments(sockets, transport, attachments);
            }
            // The gateway asks for no acknowledgement.
            Kind::Ack => return Ok(()),
            Kind::Disconnect | Kind::Event => {}
            Kind::Connect | Kind::ConnectError => return Err(Malformed),
        }
        let Some(mut socket) = sockets.get_mut(id).filter(is_let_in) else { return Ok(()) };
        if packet.kind == Kind::Event {
            self.on_event(&mut socket, text, &packet, event);
        } else {
            self.end_finally(socket.peer);
            self.leave_namespace(&mut socket, Cause::ClosedByClient);
        }
        Ok(())
    }

    fn on_connect_packet(
        &mut self,
        sockets: &mut Sockets<Peer>,
        transport: SocketId,
        named: Option<Namespace>,
        packet: &Packet<'_>,
    ) -> Result<(), Malformed> {
        let Some(mut carrier) = sockets.get_mut(transport) else { return Ok(()) };
        // Each CONNECT may cost the check of a token, so each counts for its transport here. Later it also counts for
        // the user if the client is let in, or for the client's address if it is refused.
        match self.shared.events.take(&mut carrier.peer.meter, Payer::Guest(None)) {
            RateDecision::Done => {}
            RateDecision::Refused(_) | RateDecision::Abuse => {
                carrier.close(close(SessionError::TooManyRequests), None);
                return Ok(());
            }
        }
        let Some(namespace) = named else {
            let refusal = Packet { kind: Kind::ConnectError, id: None, data: INVALID_NAMESPACE, ..*packet };
            carrier.send_text(&refusal.encode());
            return Ok(());
        };
        if let PeerState::Refused(_) = carrier.peer.state {
            return Ok(());
        }
        let awaits = carrier.peer.is_silent();
        if let Some(id) = in_namespace(sockets, transport, namespace) {
            let refused = sockets.get_mut(id).is_some_and(|socket| matches!(socket.peer.state, PeerState::Refused(_)));
            return if refused { Ok(()) } else { Err(Malformed) };
        }
        let auth = Auth::parse(packet.data);
        match sockets.get_mut(transport) {
            // The transport's own connection is in no namespace, so it gets this namespace.
            Some(mut carrier) if awaits => self.on_connect(&mut carrier, namespace, auth, None),
            Some(_) => self.on_further_connect(sockets, transport, namespace, auth),
            None => {}
        }
        Ok(())
    }

    /// Handles CONNECT to a further namespace on a transport. The result is a separate connection, also for the limits
    /// of connections.
    fn on_further_connect(
        &mut self,
        sockets: &mut Sockets<Peer>,
        transport: SocketId,
        namespace: Namespace,
        auth: Result<Auth, PayloadError>,
    ) {
        // A namespace that was left a moment ago is no longer carried.
        let carried = sockets.carried(transport).iter().filter(|id| sockets.has(**id)).count();
        let full = carried + 1 >= MAX_NAMESPACES;
        let deadline = self.socketio_deadline();
        let Some(mut carrier) = sockets.get_mut(transport) else { return };
        if full {
            return self.send_packet(&mut carrier, namespace, Kind::ConnectError, TOO_MANY_NAMESPACES);
        }
        // The permit counts the further connection, too.
        let permit = carrier.peer.permit();
        let (reserved, waiting) = match self.shared.admission.admit_further(&permit, self.shared.mailboxes.workers()) {
            Ok(admitted) => admitted,
            Err(error) => {
                metrics::counter!(names::DROPPED, "reason" => error.as_str()).increment(1);
                return self.send_connect_error(&mut carrier, namespace, SessionError::TooManyRequests, None);
            }
        };
        // From now on, a packet for a namespace that has ended is dropped, because the packet may have been on its way.
        carrier.peer.cold_mut().socketio.get_or_insert_default().was_connected = true;
        let state = SocketIoState { handshake: auth, ..SocketIoState::default() };
        let mut peer = carrier.peer.further(deadline, state, Some(waiting));
        peer.dialect = Dialect::SocketIo(namespace);
        match sockets.carry(transport, peer, Some(reserved)) {
            Some(id) => self.awaiting_claims.push((transport, id)),
            None => {
                if let Some(mut carrier) = sockets.get_mut(transport) {
                    self.send_connect_error(&mut carrier, namespace, SessionError::TooManyRequests, None);
                }
            }
        }
    }

    fn on_attachment(
        &mut self,
        sockets: &mut Sockets<Peer>,
        transport: SocketId,
        data: &[u8],
    ) -> Result<(), Malformed> {
        let Some(carrier) = sockets.get_mut(transport) else { return Ok(()) };
        let Some(mut attachments) = socketio_state(carrier.peer).and_then(|state| state.attachments.take()) else {
            return outside_namespace(sockets, transport);
        };
        attachments.push(data)?;
        self.on_attachments(sockets, transport, attachments)
    }

    fn on_attachments(
        &mut self,
        sockets: &mut Sockets<Peer>,
        transport: SocketId,
        attachments: Attachments,
    ) -> Result<(), Malformed> {
        let Some(carrier) = sockets.get_mut(transport) else { return Ok(()) };
        if !attachments.is_whole() {
            carrier.peer.cold_mut().socketio.get_or_insert_default().attachments = Some(attachments);
            return Ok(());
        }
        carrier.peer.trim_socketio();
        let (text, _) = attachments.into_parts();
        let packet = Packet::parse(&text)?;
        let named = self.shared.rooms.namespaces().find(packet.namespace);
        let Some(id) = named.and_then(|named| in_namespace(sockets, transport, named)) else { return Ok(()) };
        if let Some(mut socket) = sockets.get_mut(id).filter(is_let_in)
            && packet.kind == Kind::BinaryEvent
        {
            self.on_event(&mut socket, &text, &packet, Event::parse(packet.data).ok());
        }
        Ok(())
    }

    /// Handles an event now, or keeps it until the running handler is done.
    fn on_event(&mut self, socket: &mut Socket<'_, Peer>, text: &str, packet: &Packet<'_>, event: Option<Event<'_>>) {
        let waits = matches!(socket.peer.state, PeerState::Connecting(_) | PeerState::Busy);
        if let (false, Dialect::SocketIo(namespace)) = (waits, socket.peer.dialect) {
            let (request, ack) = dialect::socketio_request(namespace, packet, event);
            self.on_request_read(socket, request, ack);
        } else if !socket.peer.push_pending(text, self.options.max_pending) {
            socket.pause();
        }
    }

    /// Records that the client said DISCONNECT. A later connection of the client does not resume this session, even if
    /// it comes before the session's end is written.
    fn end_finally(&self, peer: &mut Peer) {
        peer.ends_finally = true;
        if let Some((pids, id)) = self.shared.pids.as_ref().zip(peer.resume_id()) {
            pids.end(id);
        }
    }

    /// Takes the client out of its namespace. Its transport stays, and the client may connect to a namespace again.
    pub(super) fn leave_namespace(&mut self, socket: &mut Socket<'_, Peer>, cause: Cause) {
        if socket.is_carried() {
            return socket.end_carried(cause);
        }
        let fresh = socket.peer.without_namespace(self.socketio_deadline());
        let (id, old) = socket.renew(fresh);
        socket.resume();
        self.on_closed(id, old, cause);
    }

    /// Sends a packet.
    pub(super) fn send_packet(&self, socket: &mut Socket<'_, Peer>, namespace: Namespace, kind: Kind, data: &[u8]) {
        socket.send_text(&dialect::packet(self.shared.rooms.namespaces(), namespace, kind, None, data));
    }
}

/// Returns the connection of a transport that is in this namespace or asks for it.
fn in_namespace(sockets: &mut Sockets<Peer>, transport: SocketId, namespace: Namespace) -> Option<SocketId> {
    let own = sockets.get_mut(transport)?;
    let awaits = matches!(own.peer.state, PeerState::AwaitingConnect(_));
    if own.peer.dialect == Dialect::SocketIo(namespace) && !awaits {
        return Some(transport);
    }
    let carried = sockets.carried(transport).to_vec();
    let is_in =
        |id: &SocketId| sockets.get_mut(*id).is_some_and(|socket| socket.peer.dialect == Dialect::SocketIo(namespace));
    carried.into_iter().find(is_in)
}

/// Handles a packet for a namespace that the client is not in. The client may have sent the packet before it learned
/// that it is no longer in the namespace.
fn outside_namespace(sockets: &mut Sockets<Peer>, transport: SocketId) -> Result<(), Malformed> {
    let Some(carrier) = sockets.get_mut(transport) else { return Ok(()) };
    let ends = matches!(carrier.peer.state, PeerState::Refused(_));
    if ends || socketio_state(carrier.peer).is_some_and(|state| state.was_connected) { Ok(()) } else { Err(Malformed) }
}

/// Returns whether a client has been let in or is about to be.
fn is_let_in(socket: &Socket<'_, Peer>) -> bool {
    !matches!(socket.peer.state, PeerState::Refused(_) | PeerState::AwaitingConnect(_))
}

fn socketio_state(peer: &mut Peer) -> Option<&mut SocketIoState> {
    peer.cold.as_mut()?.socketio.as_deref_mut()
}
