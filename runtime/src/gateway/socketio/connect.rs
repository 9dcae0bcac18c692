//! CONNECT: a client is let in, to a classroom where it names one.
use rollcall_schema::{
    AgentLabel, ConnectRequest, ConnectSuccess, SessionError,
    request::PayloadError,
    socketio::{self, Auth},
};
use rollcall_socketio::{Kind, packet};

use super::super::{Gateway, WorkerCommand, dialect::Dialect, on_connect_request::begin_connecting, peer::Peer};
use crate::{
    handler::{
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
    ) {
        let Some(waiting) = begin_connecting(socket.peer) else { return };
        socket.peer.dialect = Dialect::SocketIo(namespace);
        let handshake = socket.peer.cold.as_mut().and_then(|cold| cold.socketio.take());
        socket.peer.trim();
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
        let lesson = auth.lesson_id.clone().or(handshake.lesson_id.clone());
        let token = auth.token().or(handshake.token()).cloned();
        socket.peer.join_trace(auth.traceparent);
        if let Some(classroom_id) = auth.classroom_id.or(handshake.classroom_id) {
            let url_parameter = lesson.map(|lesson| lesson.as_str().into());
            let request = ConnectRequest {
                token,
                classroom_id,
                agent_label: label,
                resume: None,
                roster: auth.roster,
                heartbeat: None,
                traceparent: None,
            };
            self.connect(socket, waiting, request, url_parameter);
        } else {
            let (id, mailboxes) = (socket.id(), self.shared.mailboxes.clone());
            let roster = auth.roster == Some(true);
            let call = self.shared.table.admit(socket.peer.client(), token);
            tokio::spawn(async move {
                let outcome = call.await.map(|claims| Box::new(Visitor { claims, label, lesson, roster }));
                drop(waiting);
                mailboxes.send(id, WorkerCommand::Admitted { socket: id, outcome }).await;
            });
        }
    }

    /// A client was let in without a classroom, or not.
    pub(in super::super) fn on_admitted(
        &mut self,
        sockets: &mut Sockets<Peer>,
        id: SocketId,
        outcome: Result<Box<Visitor>, Refused>,
    ) {
        let Some(mut socket) = sockets.get_mut(id) else {
            self.closed_while_busy.remove(&id);
            return;
        };
        let visitor = match outcome {
            Ok(visitor) => visitor,
            Err(Refused { error, detail }) => return self.end_refused(&mut socket, error, detail),
        };
        if let Dialect::SocketIo(namespace) = socket.peer.dialect {
            self.send_connect_answer(&mut socket, namespace);
        }
        self.visitor_returned(&mut socket, visitor);
        if self.draining {
            self.announce_to(&mut socket);
        }
    }

    /// CONNECT is answered, then comes what connect_success says.
    pub(in super::super) fn send_connected(
        &self,
        socket: &mut Socket<'_, Peer>,
        namespace: Namespace,
        success: &ConnectSuccess<'_>,
    ) {
        self.send_connect_answer(socket, namespace);
        self.send_event(socket, namespace, socketio::CONNECT_SUCCESS, &success.payload());
    }

    fn send_connect_answer(&self, socket: &mut Socket<'_, Peer>, namespace: Namespace) {
        let sid = self.shared.mailboxes.sid(socket.id());
        self.send_packet(socket, namespace, Kind::Connect, format!(r#"{{"sid":"{sid}"}}"#).as_bytes());
    }
}

/// `web` for the main namespace, and the name of another, as far as a label can have it.
fn default_label(namespace: &str) -> Option<AgentLabel> {
    if namespace == packet::MAIN {
        return AgentLabel::parse(LABEL).ok();
    }
    let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let label: String = namespace[1..].chars().map(|c| if known(c) { c } else { '-' }).take(64).collect();
    AgentLabel::parse(&label).ok()
}
