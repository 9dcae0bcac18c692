//! The gateway: an [`Application`] on the socket layer, one value a worker. It reads requests, runs functions, writes acks
//! and pushes.
//!
//! Invariant: one function of a connection runs at a time, in the order of its messages; a session is in exactly one
//! place: with its peer, with a running function, or with the departures.
mod batch;
pub mod disconnect_queue;
mod drain;
mod enumerate;
mod fanout;
mod mailboxes;
mod peer;
mod replay;
mod reset;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rollcall_schema::{
    AckError, ConnectSuccess, LeftReason, LessonId, Offset, Request, SessionError, Sid, ack,
    connect_success::Start,
    request::{PayloadError, RequestError},
};

use self::{
    enumerate::Awaited,
    fanout::Fanout,
    peer::PeerState,
    replay::{Chunk, ReplayEnd},
    reset::Resets,
};
pub use self::{
    enumerate::{Enumerate, FindMissing, Page},
    fanout::AgentMark,
    mailboxes::{Mailboxes, WorkerCommand},
    peer::Peer,
};
use crate::{
    gateway::disconnect_queue::DisconnectQueue,
    handler::{
        connect_context::ConnectContext,
        connected::{Connected, Resumption},
        error::Refused,
        session::Session,
        table::{Outcome, Table},
    },
    limits::{
        EventLimits, Payer, RateDecision,
        admission::{ClientPermit, UnauthenticatedPermit},
    },
    rooms::{RoomKey, Rooms},
};
use rollcall_base::names;
use rollcall_bus::Position;
use rollcall_websocket::{
    Application, Cause, Close, CloseNotice, Message, Socket, SocketId, SocketIo, Sockets, Upgrade,
};

/// Bytes that may wait for a client who is over its limit of events: it is told so only while it reads. Else seven bytes
/// of its own would cost a hundred of ours.
const UNREAD: usize = 16 << 10;

/// The longest wait that a client is given before it reconnects, where there is no reason for a shorter one.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Parameters of the gateway (PROTOCOL 2, Limits).
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// From the upgrade to connect_request.
    pub connect_timeout: Duration,
    /// Told to the client; the socket layer keeps it.
    pub ping_interval: Duration,
    /// Bytes of requests that wait for a running function; with more, the socket is not read.
    pub max_pending: usize,
    /// Over how long connections are closed whose rooms' events are gone for good.
    pub reset_spread: Duration,
}

/// What the workers share.
pub struct GatewayContext {
    /// The functions.
    pub table: Table,
    /// Where sessions go when their connection is over.
    pub departures: DisconnectQueue,
    /// Where replays come from.
    pub rooms: Rooms,
    /// The way back from a function to its worker.
    pub mailboxes: Mailboxes,
    /// How many events a connection may send.
    pub events: Arc<EventLimits>,
    /// Parameters.
    pub options: GatewayOptions,
}

/// One worker's part of the gateway.
pub struct Gateway {
    shared: Arc<GatewayContext>,
    fanout: Fanout,
    /// Connections that ended while their function ran: why, for when the session comes back.
    orphans: HashMap<SocketId, LeftReason>,
    awaited: Awaited,
    resets: Resets,
    started: Instant,
    /// Each client is given a part of it at random (no herd).
    reconnect_within: Duration,
    /// Clients are being told that the node drains.
    draining: bool,
}

impl Gateway {
    /// A worker's part, without connections.
    #[must_use]
    pub fn new(shared: Arc<GatewayContext>) -> Self {
        let now = Instant::now();
        Self {
            resets: Resets::new(shared.options.reset_spread, now),
            shared,
            fanout: Fanout::default(),
            orphans: HashMap::new(),
            awaited: Awaited::default(),
            started: now,
            reconnect_within: RECONNECT_WITHIN,
            draining: false,
        }
    }

    /// The first message: it must be connect_request.
    fn greet(&mut self, socket: &mut Socket<'_, Peer>, text: &str) {
        let Ok(request) = Request::parse(text.as_bytes()) else {
            return self.end(socket, SessionError::SerializationFailed);
        };
        if request.event != "connect_request" {
            return self.end(socket, SessionError::UnsupportedRequest);
        }
        let connect = match request.payload() {
            Ok(connect) => connect,
            Err(PayloadError { detail }) => {
                return self.end_with(socket, SessionError::SerializationFailed, detail.as_deref());
            }
        };
        let id = socket.id();
        let asked = socket.peer.extra.as_mut().and_then(|extra| extra.asked.take());
        let client = socket.peer.client();
        let PeerState::ConnectContext(waiting) = std::mem::replace(&mut socket.peer.phase, PeerState::Connecting)
        else {
            return;
        };
        if let Some(waiting) = &waiting {
            waiting.spoke();
        }
        socket.peer.expires = u64::MAX;
        let sid = self.shared.mailboxes.sid(id);
        let call = self.shared.table.connect(ConnectContext { socket: id, sid, client, asked }, connect);
        let mailboxes = self.shared.mailboxes.clone();
        tokio::spawn(async move {
            let outcome = call.await.map(Box::new);
            drop(waiting);
            mailboxes.send(id, WorkerCommand::Connected { socket: id, outcome }).await;
        });
    }

    /// A message of a connection that was let in, and whose last function is done.
    fn request(&mut self, socket: &mut Socket<'_, Peer>, text: &str) {
        let PeerState::Open(session) = &socket.peer.phase else { return };
        let user = session.user();
        let payer = match &user {
            Some((user, audience)) => Payer::User(user, audience),
            None => Payer::Guest(socket.peer.client()),
        };
        match self.shared.events.take(&mut socket.peer.meter, payer) {
            RateDecision::Done => {}
            RateDecision::Refused(wait) if socket.queued() <= UNREAD => return refuse(socket, text, wait),
            RateDecision::Refused(_) | RateDecision::Abuse => return self.end(socket, SessionError::TooManyRequests),
        }
        let request = match Request::parse(text.as_bytes()) {
            Ok(request) => request,
            Err(error) => {
                socket.send_text(&ack::error(error.reference(), AckError::InvalidPayload));
                return;
            }
        };
        let PeerState::Open(session) = std::mem::replace(&mut socket.peer.phase, PeerState::Busy) else { return };
        match self.shared.table.invoke(&request, session) {
            Ok(call) => {
                let (id, mailboxes) = (socket.id(), self.shared.mailboxes.clone());
                tokio::spawn(async move {
                    let outcome = call.await;
                    mailboxes.send(id, WorkerCommand::Answered { socket: id, outcome }).await;
                });
            }
            Err((session, ack)) => {
                socket.peer.phase = PeerState::Open(session);
                socket.send_text(&ack);
            }
        }
    }

    /// connect is done: success is the first frame, then what came for the room meanwhile.
    fn connected(&mut self, sockets: &mut Sockets<Peer>, id: SocketId, outcome: Result<Box<Connected>, Refused>) {
        let Some(mut socket) = sockets.get_mut(id) else {
            match outcome {
                Ok(welcome) => {
                    metrics::gauge!(names::SESSIONS).increment(1.0);
                    self.orphan(id, Box::new(welcome.session));
                }
                Err(_) => drop(self.orphans.remove(&id)),
            }
            return;
        };
        let Connected { session, resumption } = match outcome {
            Ok(welcome) => *welcome,
            Err(Refused { error, detail }) => return self.end_with(&mut socket, error, detail),
        };
        let start = resumption.as_ref().map(|resumption| Start {
            epoch: &resumption.position.epoch,
            offset: resumption.position.offset,
            recovered: resumption.recovered,
        });
        let success = ConnectSuccess {
            session: session.presence.as_ref().map(|presence| (presence.session, &presence.agent)),
            sid: session.sid,
            ping_interval: self.shared.options.ping_interval,
            expires_at: session.expires(),
            start,
        };
        socket.send_text(&success.message());
        metrics::gauge!(names::SESSIONS).increment(1.0);
        let resumes = resumption.as_ref().map(|resumption| {
            let (follower, settled) = self.shared.rooms.follow();
            self.fanout.settled(settled);
            (resumption, follower)
        });
        socket.peer.admit(session.presence.as_ref(), resumes);
        if let Some(Resumption { position, replay: Some((events, upto)), .. }) = resumption {
            let GatewayContext { mailboxes, rooms, .. } = &*self.shared;
            let upto = Position { offset: upto, ..position };
            let asked = (upto, self.fanout.rooms_of(socket.peer));
            tokio::spawn(replay::replay(mailboxes.clone(), rooms.clone(), (id, session.sid), asked, events));
        }
        self.settle(&mut socket, Box::new(session), None);
        if self.draining {
            self.announce(&mut socket);
        }
    }

    /// A piece of what a connection missed.
    fn replay(&self, sockets: &mut Sockets<Peer>, Chunk { socket, events, queued }: Chunk) {
        let Some(mut socket) = sockets.get_mut(socket) else { return };
        for incoming in events {
            let key = self.fanout.key_in(socket.peer, &incoming.room);
            let Some(key) = key.filter(|key| socket.peer.lacks(*key, incoming.offset)) else { continue };
            let Some(delivery) = self.shared.rooms.encode(key, incoming) else { continue };
            if delivery.is_for(socket.peer.mark) {
                socket.send_frames(&delivery.resumable(delivery.offset()));
            }
        }
        // Who has gone meanwhile needs no answer.
        let _ = queued.send(socket.queued());
    }

    /// The end of what a connection missed: it is live, unless more came meanwhile.
    fn replayed(&self, sockets: &mut Sockets<Peer>, ReplayEnd { socket, upto, rooms, missed: answer }: ReplayEnd) {
        let Some(socket) = sockets.get_mut(socket) else { return };
        let shown: Vec<RoomKey> = rooms.iter().filter_map(|room| self.fanout.key_in(socket.peer, room)).collect();
        // A lesson that is being joined is asked for when it has been.
        let joined = socket.peer.classroom.into_iter().chain(socket.peer.lesson);
        let rooms = joined.filter_map(|key| self.fanout.id(key).cloned()).collect();
        // A node that is behind the one where the client was must not send again what came there.
        socket.peer.pass(upto, &shown);
        let extra = socket.peer.extra();
        let Some(replaying) = extra.replaying.as_mut() else { return };
        let missed = replaying.missed.take().is_some_and(|missed| missed > upto);
        let joined = replaying.joined.take();
        let more = (missed || joined.is_some()).then(|| (joined.map_or(upto, |joined| joined.min(upto)), rooms));
        if more.is_none() {
            extra.replaying = None;
        }
        let _ = answer.send(more);
    }

    /// The session is back with its peer: its rooms are the peer's, and the next message has its turn. `begins` is the
    /// offset from which events of the lesson come that was joined by a connection that resumes.
    fn settle(&mut self, socket: &mut Socket<'_, Peer>, session: Box<Session>, begins: Option<Offset>) {
        let whole = self.fanout.settle(socket, &session, begins);
        socket.peer.expires = session.expires().map_or(u64::MAX, |expires| expires.saturating_mul(1_000));
        self.awaited.settled(socket.id(), &session);
        socket.peer.phase = PeerState::Open(session);
        if !whole {
            return self.end(socket, SessionError::InternalServerError);
        }
        while socket.is_open() && matches!(socket.peer.phase, PeerState::Open(_)) {
            let Some(text) = socket.peer.next_waiting() else { return socket.resume() };
            self.request(socket, &text);
        }
    }

    /// The connection of a function's session ended while it ran.
    fn orphan(&mut self, id: SocketId, session: Box<Session>) {
        let reason = self.orphans.remove(&id).unwrap_or(LeftReason::Lost);
        self.shared.departures.leave(session, reason);
    }

    /// Says why, if its client does not know yet, and closes.
    fn end(&mut self, socket: &mut Socket<'_, Peer>, error: SessionError) {
        self.end_with(socket, error, None);
    }

    fn end_with(&mut self, socket: &mut Socket<'_, Peer>, error: SessionError, detail: Option<&str>) {
        metrics::counter!(names::DISCONNECTS, "reason" => error.name()).increment(1);
        let drained = error == SessionError::Terminated;
        socket.peer.kicked = Some(if drained { LeftReason::Drained } else { LeftReason::Kicked });
        let message = (!drained || !socket.peer.told).then(|| self.last_words(error, detail));
        socket.close(close(error), message.as_deref());
    }

    fn last_words(&self, error: SessionError, detail: Option<&str>) -> Vec<u8> {
        let share = f64::from(u32::try_from(Sid::random().0 & 0xffff).unwrap_or_default()) / f64::from(0xffff);
        error.message_with(self.reconnect_within.mul_f64(share), detail)
    }
}

impl Application for Gateway {
    type Peer = Peer;
    type Command = WorkerCommand;

    fn opened(&mut self, socket: &mut SocketIo<'_>, mut upgrade: Upgrade) -> Peer {
        // A lesson_id that cannot be one is as good as none.
        let asked = upgrade.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("lesson_id=")));
        let asked = asked.and_then(|asked| LessonId::parse(asked).ok());
        let waiting = upgrade.head.extensions.remove::<UnauthenticatedPermit>();
        if let Some(waiting) = &waiting {
            waiting.arrived(socket.id());
        }
        let held = (upgrade.head.extensions.remove::<ClientPermit>().flatten(), waiting);
        Peer::new(millis(self.started.elapsed() + self.shared.options.connect_timeout), asked, held)
    }

    fn message(&mut self, socket: &mut Socket<'_, Peer>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        match socket.peer.phase {
            PeerState::ConnectContext(_) => self.greet(socket, text),
            PeerState::Open(_) => self.request(socket, text),
            PeerState::Connecting | PeerState::Busy => {
                if !socket.peer.wait(text, self.shared.options.max_pending) {
                    socket.pause();
                }
            }
        }
    }

    fn command(&mut self, sockets: &mut Sockets<Peer>, command: WorkerCommand) {
        match command {
            WorkerCommand::Enter { socket, room } => self.fanout.enter(sockets, socket, room),
            WorkerCommand::Deliver(delivery) => self.fanout.deliver(delivery),
            WorkerCommand::Watermark(offset) => self.fanout.settled(offset),
            WorkerCommand::Gap(upto) => {
                let concerned = |socket: &mut Socket<'_, Peer>| {
                    socket.peer.reached().is_none_or(|reached| reached.last < upto)
                        && self.fanout.is_concerned(socket.peer, upto)
                };
                self.resets.add(sockets_of(sockets, concerned), Instant::now());
            }
            WorkerCommand::StreamReset => {
                self.fanout.start_again();
                let concerned = |socket: &mut Socket<'_, Peer>| socket.peer.rooms().next().is_some();
                self.resets.add(sockets_of(sockets, concerned), Instant::now());
            }
            WorkerCommand::Replay(chunk) => self.replay(sockets, chunk),
            WorkerCommand::Replayed(end) => self.replayed(sockets, end),
            WorkerCommand::Connected { socket, outcome } => self.connected(sockets, socket, outcome),
            WorkerCommand::Answered { socket, outcome: Outcome { session, ack, begins } } => {
                match sockets.get_mut(socket) {
                    Some(mut socket) => {
                        if let Some(ack) = ack {
                            socket.send_text(&ack);
                        }
                        self.settle(&mut socket, session, begins);
                    }
                    None => self.orphan(socket, session),
                }
            }
            WorkerCommand::Close { socket, sid, error } => match sockets.get_mut(socket) {
                Some(mut socket) => self.end(&mut socket, error),
                None => self.shared.departures.taken_over(sid),
            },
            WorkerCommand::Ended { mut sids, answer } => {
                let mailboxes = &self.shared.mailboxes;
                sids.retain(|sid| mailboxes.socket(*sid).and_then(|socket| sockets.get_mut(socket)).is_none());
                // Who no longer waits needs no answer.
                let _ = answer.send(sids);
            }
            WorkerCommand::CloseSilent(id) => {
                if let Some(mut socket) = sockets.get_mut(id).filter(|socket| socket.peer.is_silent()) {
                    self.end(&mut socket, SessionError::TooManyRequests);
                    // It has said nothing: there is nothing unread whose reset could destroy the close frame.
                    socket.release();
                }
            }
            WorkerCommand::AnnounceDrain(count, within) => self.announce_drain(sockets, count, within),
            WorkerCommand::CloseSome(count, within) => self.dismiss(sockets, count, within),
            WorkerCommand::Enumerate(ask) => self.enumerate(sockets, ask),
            WorkerCommand::FindMissing(ask) => self.find_missing(sockets, ask),
            WorkerCommand::CloseAll(error) => sockets.each(|socket| self.end(socket, error)),
        }
    }

    fn flush(&mut self, sockets: &mut Sockets<Peer>) {
        self.fanout.flush(sockets);
    }

    fn tick(&mut self, sockets: &mut Sockets<Peer>, now: Instant) {
        for id in self.resets.due(now) {
            if let Some(mut socket) = sockets.get_mut(id) {
                self.end(&mut socket, SessionError::InternalServerError);
            }
        }
        let (date, age) = (now_ms(), millis(now.saturating_duration_since(self.started)));
        sockets.each(|socket| match socket.peer.phase {
            PeerState::ConnectContext(_) if socket.peer.expires <= age => self.end(socket, SessionError::AuthTimedOut),
            PeerState::Open(_) if socket.peer.expires <= date => self.end(socket, SessionError::TokenExpired),
            PeerState::ConnectContext(_) | PeerState::Connecting | PeerState::Open(_) | PeerState::Busy => {}
        });
    }

    fn farewell(&mut self, cause: Cause) -> CloseNotice {
        let error = match cause {
            Cause::SlowConsumer => SessionError::SlowConsumer,
            Cause::PongTimedOut => SessionError::PongTimedOut,
            Cause::Closed | Cause::Lost | Cause::Violation(_) | Cause::Ours => SessionError::Terminated,
        };
        metrics::counter!(names::DISCONNECTS, "reason" => error.name()).increment(1);
        CloseNotice { close: close(error), text: Some(self.last_words(error, None).into()) }
    }

    fn expects_life(peer: &Peer) -> bool {
        !matches!(peer.phase, PeerState::ConnectContext(_))
    }

    fn closed(&mut self, _sockets: &mut Sockets<Peer>, id: SocketId, peer: Peer, cause: Cause) {
        self.fanout.gone(id, &peer);
        self.awaited.gone(id);
        let reason = match cause {
            // It knows that the node drains: it may be on its way to another one.
            Cause::Closed | Cause::Lost | Cause::PongTimedOut if peer.told => LeftReason::Drained,
            Cause::Closed => LeftReason::Closed,
            Cause::Lost => LeftReason::Lost,
            Cause::PongTimedOut => LeftReason::TimedOut,
            Cause::Violation(_) | Cause::SlowConsumer => LeftReason::Kicked,
            Cause::Ours => peer.kicked.unwrap_or(LeftReason::Drained),
        };
        if matches!(cause, Cause::Closed | Cause::Lost | Cause::Violation(_)) {
            metrics::counter!(names::DISCONNECTS, "reason" => reason.as_str()).increment(1);
        }
        match peer.phase {
            PeerState::Open(session) => self.shared.departures.leave(session, reason),
            PeerState::Connecting | PeerState::Busy => {
                self.orphans.insert(id, reason);
            }
            PeerState::ConnectContext(_) => {}
        }
    }
}

/// The close frame of an error: its reason is the error's name.
fn close(error: SessionError) -> Close {
    Close { code: error.close_code(), reason: error.name() }
}

/// One request too many: its client is told when to come again, and nothing else happens.
fn refuse(socket: &mut Socket<'_, Peer>, text: &str, wait: Duration) {
    metrics::counter!(names::DROPPED, "reason" => "too_many_requests").increment(1);
    let reference = Request::parse(text.as_bytes()).map_or_else(RequestError::reference, |request| request.reference);
    socket.send_text(&ack::error(reference, AckError::TooManyRequests(wait)));
}

/// The connections of which this is so.
fn sockets_of(sockets: &mut Sockets<Peer>, is_so: impl Fn(&mut Socket<'_, Peer>) -> bool) -> Vec<SocketId> {
    let mut found = Vec::new();
    sockets.each(|socket| {
        if is_so(socket) {
            found.push(socket.id());
        }
    });
    found
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
