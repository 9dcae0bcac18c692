//! The requests of a connection. One handler runs at a time, and the next message waits until the handler is done.
use rollcall_schema::{AckError, Answer, Offset, Request, SessionError, request::PayloadError};

use super::{
    Gateway, WorkerCommand,
    dialect::{AckTo, ReadRequest, read_request},
    peer::{Peer, PeerState},
};
use crate::{
    handler::{handlers::Outcome, session::Session},
    limits::{Payer, RateDecision},
};
use rollcall_base::names;
use rollcall_websocket::Socket;

/// A client that exceeds its limit of events gets an ack about the limit only while at most this many bytes wait to be
/// sent to it. Otherwise a request of seven bytes would make the node keep an ack of a hundred bytes.
const MAX_UNREAD_ACKS: usize = 16 << 10;

impl Gateway {
    /// Handles a message of a connection that was let in and whose last handler is done.
    pub(super) fn on_request(&mut self, socket: &mut Socket<'_, Peer>, text: &str) {
        let (request, ack) = read_request(socket.peer.dialect, text);
        self.on_request_read(socket, request, ack);
    }

    /// Handles a message that has already been parsed.
    pub(super) fn on_request_read(&mut self, socket: &mut Socket<'_, Peer>, request: ReadRequest<'_>, ack: AckTo) {
        if self.end_expired(socket) {
            return;
        }
        let user = socket.peer.user();
        let payer = match &user {
            Some((user, audience)) => Payer::User(user, audience),
            None => Payer::Guest(socket.peer.client()),
        };
        match self.shared.events.take(&mut socket.peer.meter, payer) {
            RateDecision::Done => {}
            RateDecision::Refused(wait) if socket.queued() <= MAX_UNREAD_ACKS => {
                metrics::counter!(names::DROPPED, "reason" => "too_many_requests").increment(1);
                return self.answer(socket, &ack, &AckError::TooManyRequests(wait).into());
            }
            RateDecision::Refused(_) | RateDecision::Abuse => return self.end(socket, SessionError::TooManyRequests),
        }
        let request = match request {
            Ok(request) => request,
            Err(PayloadError { detail }) => {
                return self.answer(socket, &ack, &Answer::Error(AckError::InvalidPayload, detail));
            }
        };
        match std::mem::replace(&mut socket.peer.state, PeerState::Busy) {
            PeerState::Open(session) if socket.peer.roams => self.on_roaming_request(socket, session, &request, ack),
            PeerState::Open(session) => self.invoke(socket, session, &request, ack),
            PeerState::Outside(visitor) => self.on_request_outside(socket, visitor, &request, ack),
            state => socket.peer.state = state,
        }
    }

    /// Runs the handler of an event.
    pub(super) fn invoke(
        &self,
        socket: &mut Socket<'_, Peer>,
        session: Box<Session>,
        request: &Request<'_>,
        ack: AckTo,
    ) {
        match self.shared.table.invoke(request, session) {
            Ok(call) => {
                let (id, mailboxes) = (socket.id(), self.shared.mailboxes.clone());
                let namespaces = self.shared.rooms.namespaces().clone();
                tokio::spawn(async move {
                    let Outcome { session, answer, begins } = call.await;
                    let ack = ack.encode(&namespaces, &answer);
                    mailboxes.send(id, WorkerCommand::Answered { socket: id, session, ack, begins }).await;
                });
            }
            Err((session, answer)) => {
                socket.peer.state = PeerState::Open(session);
                self.answer(socket, &ack, &answer);
            }
        }
    }

    /// Answers a request for which no handler ran.
    pub(super) fn answer(&self, socket: &mut Socket<'_, Peer>, ack: &AckTo, answer: &Answer) {
        if let Some(ack) = ack.encode(self.shared.rooms.namespaces(), answer) {
            socket.send_text(&ack);
        }
    }

    /// Handles the end of a handler: puts the connection into the rooms that its session names, and handles its next
    /// message. `begins` is `Some` if a connection that resumes joined a lesson: the connection gets the lesson's
    /// events after that offset.
    pub(super) fn session_returned(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        session: Box<Session>,
        begins: Option<Offset>,
    ) {
        let whole = self.fanout.apply_session(socket, &session, begins);
        self.continue_replay(socket);
        socket.peer.expires = session.expires().map_or(u64::MAX, |expires| expires.saturating_mul(1_000));
        self.enumeration.session_returned(socket.id(), &session);
        socket.peer.state = PeerState::Open(session);
        if !whole {
            return self.end(socket, SessionError::InternalServerError);
        }
        self.kick_late(socket);
        self.handle_pending(socket);
    }

    /// Handles the messages that came while a handler ran, until one of them starts a handler.
    pub(super) fn handle_pending(&mut self, socket: &mut Socket<'_, Peer>) {
        while socket.is_open() && matches!(socket.peer.state, PeerState::Open(_) | PeerState::Outside(_)) {
            let Some(text) = socket.peer.pop_pending() else { return socket.resume() };
            self.on_request(socket, &text);
        }
    }
}
