//! Handles the first message of a connection, which must be connect_request: runs the handler of connect and sends its
//! result.
use rollcall_schema::{
    ConnectRequest, ConnectSuccess, Request, RosterPage, SessionError, connect_success::Start, request::PayloadError,
};

use super::{
    Gateway, WorkerCommand,
    dialect::Dialect,
    peer::{Peer, PeerState},
    replay,
};
use crate::{
    handler::{
        connect_context::ConnectContext,
        connected::{Connected, Resumption},
        error::Refused,
        session::Session,
    },
    limits::admission::UnauthenticatedPermit,
};
use rollcall_base::names;
use rollcall_bus::Position;
use rollcall_websocket::{Socket, SocketId, Sockets};

impl Gateway {
    pub(super) fn on_connect_request(&mut self, socket: &mut Socket<'_, Peer>, text: &str) {
        let request = Request::parse(text.as_bytes()).map_err(PayloadError::from);
        if request.as_ref().is_ok_and(|request| request.event != self.shared.table.first_event()) {
            return self.end(socket, SessionError::UnsupportedRequest);
        }
        let connect: ConnectRequest = match request.and_then(|request| request.payload()) {
            Ok(connect) => connect,
            Err(PayloadError { detail }) => {
                return self.end_with(socket, SessionError::SerializationFailed, detail.as_deref());
            }
        };
        let url_parameter = socket.peer.cold.as_mut().and_then(|cold| cold.url_parameter.take());
        let Some(waiting) = begin_connecting(socket.peer) else { return };
        socket.peer.heartbeat = connect.heartbeat == Some(true);
        socket.peer.join_trace(self.options.traces.admit(connect.traceparent));
        self.connect(socket, waiting, connect, url_parameter);
    }

    /// Runs the handler of connect.
    pub(super) fn connect(
        &self,
        socket: &Socket<'_, Peer>,
        waiting: Option<UnauthenticatedPermit>,
        request: ConnectRequest,
        url_parameter: Option<Box<str>>,
    ) {
        let (id, mailboxes) = (socket.id(), self.shared.mailboxes.clone());
        let call = self.shared.table.connect(self.connect_context(socket, url_parameter), request);
        tokio::spawn(async move {
            let outcome = call.await.map(Box::new);
            drop(waiting);
            mailboxes.send(id, WorkerCommand::Connected { socket: id, outcome, pid: None }).await;
        });
    }

    /// Returns the data about the connection that the handler of connect gets.
    pub(super) fn connect_context(&self, socket: &Socket<'_, Peer>, url_parameter: Option<Box<str>>) -> ConnectContext {
        let (id, client) = (socket.id(), socket.peer.client());
        ConnectContext {
            socket: id,
            sid: self.shared.mailboxes.sid(id),
            client,
            url_parameter,
            trace: socket.peer.trace(),
            claims: None,
            resume_id: None,
        }
    }

    /// Handles the result of the handler of connect. The first frame is connect_success. The room's events that arrived
    /// meanwhile follow.
    pub(super) fn on_connected(
        &mut self,
        sockets: &mut Sockets<Peer>,
        id: SocketId,
        outcome: Result<Box<Connected>, Refused>,
        pid: Option<&str>,
    ) {
        let Some(mut socket) = sockets.get_mut(id) else {
            match outcome {
                Ok(connected) => {
                    metrics::gauge!(names::SESSIONS).increment(1.0);
                    self.leave_after_close(id, Box::new(connected.session));
                }
                Err(_) => drop(self.closed_while_busy.remove(&id)),
            }
            return;
        };
        let Connected { mut session, resumption, roster } = match outcome {
            Ok(connected) => *connected,
            Err(Refused { error, detail }) => return self.end_refused(&mut socket, error, detail),
        };
        socket.peer.was_let_in();
        session.set_trace(socket.peer.take_trace());
        let start = resumption.as_ref().map(Resumption::start);
        let success = self.connect_success(&session, start, roster.as_deref());
        match socket.peer.dialect {
            Dialect::Plain => socket.send_text(&success.message()),
            Dialect::SocketIo(namespace) => self.send_connected(&mut socket, namespace, &success, pid),
        }
        metrics::gauge!(names::SESSIONS).increment(1.0);
        self.admit(socket.peer, &session, resumption.as_ref());
        if let Some(Resumption { position, replay: Some((events, through)), .. }) = resumption {
            let (mailboxes, rooms) = (self.shared.mailboxes.clone(), self.shared.rooms.clone());
            let through = Position { offset: through, ..position };
            let room_ids = self.fanout.rooms_of(socket.peer);
            tokio::spawn(replay::replay(mailboxes, rooms, (id, session.sid()), (through, room_ids), events));
        }
        self.session_returned(&mut socket, Box::new(session), None);
        if self.draining {
            self.announce_to(&mut socket);
        }
    }

    /// Records that a connection is let in. If the connection resumes, it gets the events of its rooms in the stream's
    /// order.
    pub(super) fn admit(&mut self, peer: &mut Peer, session: &Session, resumption: Option<&Resumption>) {
        let resumes = resumption.map(|resumption| {
            let (follower, watermark) = self.shared.rooms.follow();
            self.fanout.set_watermark(watermark);
            (resumption, follower)
        });
        peer.admit(session.agent_id(), resumes);
    }

    /// Returns what a client is told about its session.
    pub(super) fn connect_success<'a>(
        &self,
        session: &'a Session,
        start: Option<Start<'a>>,
        roster: Option<&'a RosterPage>,
    ) -> ConnectSuccess<'a> {
        ConnectSuccess {
            session: session.membership.session(),
            sid: session.sid(),
            ping_interval: self.options.ping_interval,
            expires_at: session.expires(),
            version: env!("CARGO_PKG_VERSION"),
            start,
            roster,
        }
    }
}

/// Marks the connection as connecting, because its client has sent connect_request and the handler is about to run.
/// Returns the connection's permit among those that wait to be let in, if there is such a limit. Returns `None` if the
/// client has sent a connect_request before.
pub(super) fn begin_connecting(peer: &mut Peer) -> Option<Option<UnauthenticatedPermit>> {
    let PeerState::AwaitingConnect(waiting) = &mut peer.state else { return None };
    let waiting = waiting.take();
    if let Some(waiting) = &waiting {
        waiting.spoke();
    }
    peer.state = PeerState::Connecting(waiting.clone());
    peer.expires = u64::MAX;
    Some(waiting)
}
