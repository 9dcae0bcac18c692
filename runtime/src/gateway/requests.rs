//! The requests of a connection: one handler runs at a time, and the next message waits until it is done.
use std::time::Duration;

use rollcall_schema::{AckError, Offset, Request, SessionError, ack, request::RequestError};

use super::{
    Gateway, WorkerCommand,
    peer::{Peer, PeerState},
};
use crate::{
    handler::session::Session,
    limits::{Payer, RateDecision},
};
use rollcall_base::names;
use rollcall_websocket::Socket;

/// A client over its limit of events is told so only while at most this many bytes wait for it. Otherwise seven bytes of
/// its own would cost the node a hundred.
const MAX_UNREAD_ACKS: usize = 16 << 10;

impl Gateway {
    /// A message of a connection that was let in, and whose last handler is done.
    pub(super) fn on_request(&mut self, socket: &mut Socket<'_, Peer>, text: &str) {
        let PeerState::Open(session) = &socket.peer.state else { return };
        let user = session.user();
        let payer = match &user {
            Some((user, audience)) => Payer::User(user, audience),
            None => Payer::Guest(socket.peer.client()),
        };
        match self.shared.events.take(&mut socket.peer.meter, payer) {
            RateDecision::Done => {}
            RateDecision::Refused(wait) if socket.queued() <= MAX_UNREAD_ACKS => return refuse(socket, text, wait),
            RateDecision::Refused(_) | RateDecision::Abuse => return self.end(socket, SessionError::TooManyRequests),
        }
        let request = match Request::parse(text.as_bytes()) {
            Ok(request) => request,
            Err(error) => {
                socket.send_text(&ack::error(error.reference(), AckError::InvalidPayload));
                return;
            }
        };
        let PeerState::Open(session) = std::mem::replace(&mut socket.peer.state, PeerState::Busy) else { return };
        match self.shared.table.invoke(&request, session) {
            Ok(call) => {
                let (id, mailboxes) = (socket.id(), self.shared.mailboxes.clone());
                tokio::spawn(async move {
                    let outcome = call.await;
                    mailboxes.send(id, WorkerCommand::Answered { socket: id, outcome }).await;
                });
            }
            Err((session, ack)) => {
                socket.peer.state = PeerState::Open(session);
                socket.send_text(&ack);
            }
        }
    }

    /// A handler is done: the connection is now in the rooms that its session names, and its next message is handled.
    /// `begins` is set where a connection that resumes joined a lesson: it gets the lesson's events after that offset.
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
        while socket.is_open() && matches!(socket.peer.state, PeerState::Open(_)) {
            let Some(text) = socket.peer.pop_pending() else { return socket.resume() };
            self.on_request(socket, &text);
        }
    }
}

/// One request too many: its client is told when to try again, and nothing else happens.
fn refuse(socket: &mut Socket<'_, Peer>, text: &str, wait: Duration) {
    metrics::counter!(names::DROPPED, "reason" => "too_many_requests").increment(1);
    let reference = Request::parse(text.as_bytes()).map_or_else(RequestError::reference, |request| request.reference);
    socket.send_text(&ack::error(reference, AckError::TooManyRequests(wait)));
}
