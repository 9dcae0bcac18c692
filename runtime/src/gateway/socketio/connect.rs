//! Handles CONNECT: lets a client in, into a classroom if the client names one.
use std::sync::Arc;

use rollcall_schema::{
    AgentLabel, ConnectSuccess, ResumeId, SessionError,
    connect_success::Start,
    request::PayloadError,
    socketio::{self, Auth, Switch},
};
use rollcall_socketio::{Kind, packet};

use super::{
    super::{
        Gateway,
        dialect::{self, Dialect},
        on_connect_request::begin_connecting,
        peer::{Peer, PeerState},
    },
    let_in::{Asked, Recovery, let_in},
};
use crate::{
    auth::Claims,
    handler::{
        connect_context::ConnectContext,
        error::Refused,
        outside::{LABEL, Visitor},
    },
    rooms::Namespace,
};
use rollcall_websocket::{Socket, SocketId, Sockets};

impl Gateway {
    pub(super) fn on_connect(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        namespace: Namespace,
        auth: Result<Auth, PayloadError>,
        claims: Option<Claims>,
    ) {
        let Some(waiting) = begin_connecting(socket.peer) else { return };
        socket.peer.dialect = Dialect::SocketIo(namespace);
        let handshake = socket.peer.cold.as_mut().and_then(|cold| cold.socketio.take());
        socket.peer.trim();
        if let Some(deadline) = handshake.as_ref().and_then(|state| state.connect_by) {
            socket.peer.cold_mut().socketio.get_or_insert_default().connect_by = Some(deadline);
        }
        if socket.carries() {
            socket.peer.cold_mut().socketio.get_or_insert_default().was_connected = true;
        }
        let handshake = handshake.map_or_else(|| Ok(Auth::default()), |state| state.handshake);
        let (auth, handshake) = match (auth, handshake) {
            (Ok(auth), Ok(handshake)) => (auth, handshake),
            (Err(PayloadError { detail }), _) | (_, Err(PayloadError { detail })) => {
                return self.end_with(socket, SessionError::SerializationFailed, detail.as_deref());
            }
        };
        let label = auth.agent_label.clone().or(handshake.agent_label.clone());
        let label = label.or_else(|| default_label(self.shared.rooms.namespaces().name(namespace)));
        let Some(label) = label else { return self.end(socket, SessionError::SerializationFailed) };
        let recovery = self.recovery(&auth, &handshake, namespace);
        let classroom = auth.classroom_id.or(handshake.classroom_id);
        socket.peer.roams = classroom.is_none();
        let token = auth.token().or(handshake.token()).cloned();
        socket.peer.join_trace(self.options.traces.admit(auth.traceparent));
        let claims = claims.filter(|_| token.is_none());
        let asked = Asked {
            context: ConnectContext { claims, ..self.connect_context(socket, None) },
            namespace,
            token,
            label,
            classroom,
            lesson: auth.lesson_id.or(handshake.lesson_id),
            roster: auth.roster,
            recovery,
        };
        let (id, shared) = (socket.id(), Arc::clone(&self.shared));
        tokio::spawn(async move {
            let command = let_in(&shared, asked).await;
            drop(waiting);
            shared.mailboxes.send(id, command).await;
        });
    }

    /// Lets the client of a transport into its further namespaces, as soon as it is known who the client is. If the
    /// client sends no token for a namespace, the token of its first namespace applies.
    pub(in super::super) fn connect_further(&mut self, sockets: &mut Sockets<Peer>) {
        for (transport, id) in std::mem::take(&mut self.awaiting_claims) {
            let first = sockets.get_mut(transport).map(|carrier| match &carrier.peer.state {
                PeerState::Open(session) => Ok(session.claims()),
                PeerState::Outside(visitor) => Ok(visitor.claims.clone()),
                PeerState::Connecting(_) | PeerState::Busy => Err(()),
                PeerState::AwaitingConnect(_) | PeerState::Refused(_) => Ok(None),
            });
            let Some(mut socket) = sockets.get_mut(id) else { continue };
            let Dialect::SocketIo(namespace) = socket.peer.dialect else { continue };
            let Some(state) = socket.peer.cold.as_mut().and_then(|cold| cold.socketio.take()) else { continue };
            let has_token = state.handshake.as_ref().is_ok_and(|auth| auth.token().is_some());
            match first {
                Some(Err(())) if !has_token => {
                    socket.peer.cold_mut().socketio = Some(state);
                    self.awaiting_claims.push((transport, id));
                }
                Some(Ok(claims)) => self.on_connect(&mut socket, namespace, state.handshake, claims),
                Some(Err(())) | None => self.on_connect(&mut socket, namespace, state.handshake, None),
            }
        }
    }

    /// Returns what a client needs to resume after a break. Returns `None` if the client may not or does not want to
    /// resume.
    fn recovery(&self, auth: &Auth, handshake: &Auth, namespace: Namespace) -> Option<Recovery> {
        let pids = self.shared.pids.as_ref()?;
        if auth.recovery.or(handshake.recovery) == Some(Switch(false)) {
            return None;
        }
        let name = self.shared.rooms.namespaces().name(namespace);
        let before = auth.pid.as_deref().and_then(|text| {
            let pid = pids.read(text, name)?;
            let after = pid.after(auth.offset.as_deref());
            Some((pid, text.into(), after))
        });
        Some(Recovery { resume_id: ResumeId::random(), before })
    }

    /// Handles the result for a client that connected without a classroom.
    pub(in super::super) fn on_admitted(
        &mut self,
        sockets: &mut Sockets<Peer>,
        id: SocketId,
        outcome: Result<Box<Visitor>, Refused>,
        pid: Option<&str>,
    ) {
        let Some(mut socket) = sockets.get_mut(id) else {
            self.closed_while_busy.remove(&id);
            return;
        };
        let visitor = match outcome {
            Ok(visitor) => visitor,
            Err(Refused { error, detail }) => return self.end_refused(&mut socket, error, detail),
        };
        socket.peer.was_let_in();
        if let Dialect::SocketIo(namespace) = socket.peer.dialect {
            let answer = self.connect_answer(id, namespace, pid);
            socket.send_text(&answer);
        }
        self.visitor_returned(&mut socket, visitor);
        if self.draining {
            self.announce_to(&mut socket);
        }
    }

    /// Sends the answer to CONNECT and the data of connect_success with one write, because a write costs as much as the
    /// rest of this function.
    pub(in super::super) fn send_connected(
        &self,
        socket: &mut Socket<'_, Peer>,
        namespace: Namespace,
        success: &ConnectSuccess<'_>,
        pid: Option<&str>,
    ) {
        let (framing, mut frames) = (socket.framing(), Vec::new());
        framing.encode_text(&self.connect_answer(socket.id(), namespace, pid), &mut frames);
        framing.encode_text(&self.connect_success_event(namespace, success), &mut frames);
        socket.send_frames(&frames.into());
    }

    /// Returns the event that tells a client about its session. If the client may resume after a break, the event also
    /// says where the client's events begin.
    pub(super) fn connect_success_event(&self, namespace: Namespace, success: &ConnectSuccess<'_>) -> Vec<u8> {
        let mut arguments = success.payload();
        if let Some(Start { epoch, offset, .. }) = success.start {
            arguments.extend_from_slice(socketio::position(epoch, offset).as_bytes());
        }
        dialect::event_packet(self.shared.rooms.namespaces(), namespace, socketio::CONNECT_SUCCESS, &arguments)
    }

    fn connect_answer(&self, id: SocketId, namespace: Namespace, pid: Option<&str>) -> Vec<u8> {
        let sid = self.shared.mailboxes.sid(id);
        // Neither the sid nor the pid has a character to escape.
        let pid = pid.map(|pid| format!(r#","pid":"{pid}""#)).unwrap_or_default();
        let data = format!(r#"{{"sid":"{sid}"{pid}}}"#);
        dialect::packet(self.shared.rooms.namespaces(), namespace, Kind::Connect, None, data.as_bytes())
    }
}

/// Returns `web` for the main namespace, and the name of any other namespace, with `-` for each character that a label
/// cannot have.
fn default_label(namespace: &str) -> Option<AgentLabel> {
    if namespace == packet::MAIN {
        return AgentLabel::parse(LABEL).ok();
    }
    let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let label: String = namespace[1..].chars().map(|c| if known(c) { c } else { '-' }).take(64).collect();
    AgentLabel::parse(&label).ok()
}
