//! Moves a client that connected without a classroom into the classroom of each lesson that it joins.
use rollcall_schema::{LeftReason, Offset, Request};

use super::super::{
    Gateway, WorkerCommand,
    dialect::{AckTo, Dialect},
    peer::{Peer, PeerState},
};
use crate::handler::{
    connect_context::ConnectContext,
    connected::{Connected, Resumption},
    outside::{EnterOutcome, Moved, Visitor},
    session::Session,
};
use rollcall_base::names;
use rollcall_websocket::{Socket, SocketId, Sockets};

impl Gateway {
    /// Handles a request of a client without a classroom.
    pub(in super::super) fn on_request_outside(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        visitor: Box<Visitor>,
        request: &Request<'_>,
        ack: AckTo,
    ) {
        let (id, mailboxes, context) = (socket.id(), self.shared.mailboxes.clone(), self.connect_context(socket, None));
        match self.shared.table.enter(context, visitor, request) {
            Ok(call) => {
                let namespaces = self.shared.rooms.namespaces().clone();
                tokio::spawn(async move {
                    let (outcome, answer) = call.await;
                    let ack = ack.encode(&namespaces, &answer);
                    mailboxes.send(id, WorkerCommand::Entered { socket: id, outcome, ack }).await;
                });
            }
            Err((visitor, answer)) => {
                socket.peer.state = PeerState::Outside(visitor);
                self.answer(socket, &ack, &answer);
            }
        }
    }

    /// Handles the result of a request after which a client without a classroom may have one.
    pub(in super::super) fn on_entered(
        &mut self,
        sockets: &mut Sockets<Peer>,
        id: SocketId,
        outcome: EnterOutcome,
        ack: Option<Vec<u8>>,
    ) {
        if matches!(outcome, EnterOutcome::Entered(..)) {
            metrics::gauge!(names::SESSIONS).increment(1.0);
        }
        let Some(mut socket) = sockets.get_mut(id) else {
            match outcome {
                EnterOutcome::Entered(connected, _) => self.leave_after_close(id, Box::new(connected.session)),
                EnterOutcome::Outside(_) => drop(self.closed_while_busy.remove(&id)),
            }
            return;
        };
        match outcome {
            EnterOutcome::Entered(connected, begins) => self.entered(&mut socket, *connected, begins, ack),
            EnterOutcome::Outside(visitor) => {
                self.fanout.abandon_joins(&mut socket);
                ack.into_iter().for_each(|ack| socket.send_text(&ack));
                self.visitor_returned(&mut socket, visitor);
            }
        }
    }

    /// Puts the client into a classroom. If the client resumes, it gets the lesson's events after `begins`.
    fn entered(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        Connected { mut session, resumption, roster }: Connected,
        begins: Option<Offset>,
        ack: Option<Vec<u8>>,
    ) {
        session.set_trace(socket.peer.take_trace());
        if let (Dialect::SocketIo(namespace), Some(_)) = (socket.peer.dialect, session.agent_id()) {
            let start = resumption.as_ref().map(Resumption::start);
            let success = self.connect_success(&session, start, roster.as_deref());
            let event = self.connect_success_event(namespace, &success);
            socket.send_text(&event);
        }
        self.admit(socket.peer, &session, resumption.as_ref());
        ack.into_iter().for_each(|ack| socket.send_text(&ack));
        self.session_returned(socket, Box::new(session), begins);
    }

    /// Handles a request of a client that connected without a classroom and is now in one.
    pub(in super::super) fn on_roaming_request(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        session: Box<Session>,
        request: &Request<'_>,
        ack: AckTo,
    ) {
        let (id, mailboxes) = (socket.id(), self.shared.mailboxes.clone());
        let context = ConnectContext { trace: session.trace(), ..self.connect_context(socket, None) };
        match self.shared.table.change(context, session, request) {
            Ok(call) => {
                let namespaces = self.shared.rooms.namespaces().clone();
                tokio::spawn(async move {
                    let (outcome, answer) = call.await;
                    let ack = ack.encode(&namespaces, &answer);
                    mailboxes.send(id, WorkerCommand::Moved { socket: id, outcome, ack }).await;
                });
            }
            Err((session, None)) => self.invoke(socket, session, request, ack),
            Err((session, Some(answer))) => {
                socket.peer.state = PeerState::Open(session);
                self.answer(socket, &ack, &answer);
            }
        }
    }

    /// Handles the result of a join. If the lesson is of another classroom, the client's session in the old classroom
    /// ends, because the client now has another session.
    pub(in super::super) fn on_moved(
        &mut self,
        sockets: &mut Sockets<Peer>,
        id: SocketId,
        Moved { mut session, instead, begins }: Moved,
        ack: Option<Vec<u8>>,
    ) {
        if instead.is_some() {
            metrics::gauge!(names::SESSIONS).increment(1.0);
            // The client resumes the other session.
            session.membership.forget_resume_id();
        }
        let Some(mut socket) = sockets.get_mut(id) else {
            let session = match instead {
                Some(connected) => {
                    self.shared.disconnects.leave(session, LeftReason::Closed);
                    Box::new(connected.session)
                }
                None => session,
            };
            return self.leave_after_close(id, session);
        };
        socket.peer.join_trace(session.trace().filter(|_| instead.is_some()));
        let Some(connected) = instead else {
            self.fanout.abandon_classroom(&mut socket);
            ack.into_iter().for_each(|ack| socket.send_text(&ack));
            return self.session_returned(&mut socket, session, begins);
        };
        self.fanout.leave_classroom(&mut socket);
        self.shared.disconnects.leave(session, LeftReason::Closed);
        self.entered(&mut socket, *connected, begins, ack);
    }

    /// Takes back a client that has no classroom, after its handler is done.
    pub(super) fn visitor_returned(&mut self, socket: &mut Socket<'_, Peer>, visitor: Box<Visitor>) {
        self.enumeration.connection_ended(socket.id());
        let expires = visitor.claims.as_ref().map(|claims| claims.expires);
        socket.peer.expires = expires.map_or(u64::MAX, |expires| expires.saturating_mul(1_000));
        socket.peer.state = PeerState::Outside(visitor);
        self.handle_pending(socket);
    }
}
