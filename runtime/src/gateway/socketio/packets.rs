//! The packets of a client: which are requests, and which the gateway answers itself.
use rollcall_schema::{LeftReason, SessionError, socketio::Auth};
use rollcall_socketio::{Attachments, Event, Kind, Malformed, Packet};

use super::super::{
    Gateway,
    closing::close,
    dialect::{self, Dialect},
    peer::{Peer, PeerState},
};
use crate::{
    limits::{Payer, RateDecision},
    rooms::Namespace,
};
use rollcall_base::names;
use rollcall_websocket::{Cause, Close, Message, Socket};

/// What a client is told that asks for a namespace that there is not.
const INVALID_NAMESPACE: &str = r#"{"message":"Invalid namespace"}"#;

/// What a client is told that asks for a second namespace on one transport.
const ONE_NAMESPACE: &str = r#"{"message":"one namespace a connection: use forceNew"}"#;

impl Gateway {
    /// A message of a connection of Socket.IO. What is no packet closes it, as in the reference.
    pub(in super::super) fn on_socketio_message(&mut self, socket: &mut Socket<'_, Peer>, message: Message<'_>) {
        let handled = match message {
            Message::Text(text) => self.on_packet(socket, text),
            Message::Binary(data) => self.on_attachment(socket, data),
        };
        if handled.is_err() {
            metrics::counter!(names::DISCONNECTS, "reason" => LeftReason::Kicked.as_str()).increment(1);
            socket.peer.closed_by_us = Some(LeftReason::Kicked);
            socket.close(Close { code: 1002, reason: "malformed packet" }, None);
        }
    }

    fn on_packet(&mut self, socket: &mut Socket<'_, Peer>, text: &str) -> Result<(), Malformed> {
        let packet = Packet::parse(text)?;
        if socketio_state(socket).is_some_and(|state| state.attachments.is_some()) {
            return Err(Malformed);
        }
        let named = self.shared.rooms.namespaces().find(packet.namespace);
        if packet.kind == Kind::Connect {
            return self.on_connect_packet(socket, named, &packet);
        }
        let Dialect::SocketIo(own) = socket.peer.dialect else { return Err(Malformed) };
        match socket.peer.state {
            PeerState::Refused => return Ok(()),
            PeerState::AwaitingConnect(_) => return self.after_namespace(socket),
            PeerState::Connecting | PeerState::Busy | PeerState::Open(_) | PeerState::Outside(_) => {}
        }
        if named != Some(own) {
            return Err(Malformed);
        }
        if matches!(packet.kind, Kind::Event | Kind::BinaryEvent) {
            Event::parse(packet.data)?;
        }
        match packet.kind {
            Kind::Disconnect => self.leave_namespace(socket, Cause::ClosedByClient),
            Kind::Event => self.on_event(socket, text),
            Kind::BinaryEvent | Kind::BinaryAck => {
                let attachments = Attachments::new(text, &packet, self.options.max_message)?;
                return self.on_attachments(socket, attachments);
            }
            // The gateway asks for no acknowledgement.
            Kind::Ack => {}
            Kind::Connect | Kind::ConnectError => return Err(Malformed),
        }
        Ok(())
    }

    fn on_connect_packet(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        named: Option<Namespace>,
        packet: &Packet<'_>,
    ) -> Result<(), Malformed> {
        // Each may cost the check of a token, whoever sends it.
        match self.shared.events.take(&mut socket.peer.meter, Payer::Guest(None)) {
            RateDecision::Done => {}
            RateDecision::Refused(_) | RateDecision::Abuse => {
                socket.close(close(SessionError::TooManyRequests), None);
                return Ok(());
            }
        }
        let refusal = |data| Packet { kind: Kind::ConnectError, data, ..*packet }.encode();
        let Some(namespace) = named else {
            socket.send_text(&refusal(INVALID_NAMESPACE));
            return Ok(());
        };
        match socket.peer.state {
            PeerState::AwaitingConnect(_) => self.on_connect(socket, namespace, Auth::parse(packet.data)),
            PeerState::Refused => {}
            _ if socket.peer.dialect == Dialect::SocketIo(namespace) => return Err(Malformed),
            _ => socket.send_text(&refusal(ONE_NAMESPACE)),
        }
        Ok(())
    }

    /// A packet of a client that is in no namespace. It may have been sent before the client heard that it no longer is.
    fn after_namespace(&self, socket: &mut Socket<'_, Peer>) -> Result<(), Malformed> {
        if socketio_state(socket).is_some_and(|state| state.was_connected) { Ok(()) } else { Err(Malformed) }
    }

    fn on_attachment(&mut self, socket: &mut Socket<'_, Peer>, data: &[u8]) -> Result<(), Malformed> {
        let Some(mut attachments) = socketio_state(socket).and_then(|state| state.attachments.take()) else {
            return if matches!(socket.peer.state, PeerState::Refused) { Ok(()) } else { self.after_namespace(socket) };
        };
        attachments.push(data)?;
        self.on_attachments(socket, attachments)
    }

    fn on_attachments(&mut self, socket: &mut Socket<'_, Peer>, attachments: Attachments) -> Result<(), Malformed> {
        if !attachments.is_whole() {
            socket.peer.cold_mut().socketio.get_or_insert_default().attachments = Some(attachments);
            return Ok(());
        }
        let (text, _) = attachments.into_parts();
        socket.peer.trim_socketio();
        if Packet::parse(&text)?.kind == Kind::BinaryEvent {
            self.on_event(socket, &text);
        }
        Ok(())
    }

    /// An event: it is handled now, or waits for the handler that runs.
    fn on_event(&mut self, socket: &mut Socket<'_, Peer>, text: &str) {
        let waits = matches!(socket.peer.state, PeerState::Connecting | PeerState::Busy);
        if !waits {
            self.on_request(socket, text);
        } else if !socket.peer.push_pending(text, self.options.max_pending) {
            socket.pause();
        }
    }

    /// The client is no longer in its namespace; its transport stays, and may connect again.
    pub(super) fn leave_namespace(&mut self, socket: &mut Socket<'_, Peer>, cause: Cause) {
        let fresh = socket.peer.without_namespace(self.socketio_deadline());
        let (id, old) = socket.renew(fresh);
        socket.resume();
        self.on_closed(id, old, cause);
    }

    /// Sends a packet.
    pub(super) fn send_packet(&self, socket: &mut Socket<'_, Peer>, namespace: Namespace, kind: Kind, data: &[u8]) {
        socket.send_text(&dialect::packet(self.shared.rooms.namespaces(), namespace, kind, None, data));
    }

    /// Sends an event of the gateway.
    pub(super) fn send_event(&self, socket: &mut Socket<'_, Peer>, namespace: Namespace, name: &str, argument: &[u8]) {
        socket.send_text(&dialect::event_packet(self.shared.rooms.namespaces(), namespace, name, argument));
    }
}

fn socketio_state<'a>(socket: &'a mut Socket<'_, Peer>) -> Option<&'a mut super::super::peer::SocketIoState> {
    socket.peer.cold.as_mut()?.socketio.as_deref_mut()
}
