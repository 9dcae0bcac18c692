//! The gateway's state of one connection. The state is small, because every connection has it, even if the connection
//! is idle.
use std::collections::VecDeque;

use rollcall_schema::{
    AgentId, Audience, LeftReason, LessonId, Offset, ResumeId, TraceParent, UserId, request::PayloadError,
    socketio::Auth,
};
use rollcall_socketio::Attachments;

use super::{
    dialect::Dialect,
    join_buffer::JoinBuffer,
    resume_cursor::{ReplayState, ResumeCursor},
};
use crate::{
    handler::{connected::Resumption, outside::Visitor, session::Session},
    limits::{
        Meter,
        admission::{ClientPermit, UnauthenticatedPermit},
        network::Subscriber,
    },
    rooms::{AgentMark, Follower, Namespace, RoomKey},
};

/// The memory that a waiting message needs besides its bytes: an entry in a queue that doubles when it is full, and the
/// unused part of the allocation.
const PENDING_OVERHEAD: usize = 2 * size_of::<Box<str>>() + 24;

/// How a connection ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) reason: LeftReason,
    /// The value of [`Peer::ends_finally`].
    pub(super) is_final: bool,
    /// The lesson that the session leaves when its handler is done.
    pub(super) kicked_from: Option<LessonId>,
}

/// The state of a connection.
pub struct Peer {
    pub(super) state: PeerState,
    /// The protocol that the client speaks.
    pub(super) dialect: Dialect,
    /// The classroom's room if the connection gets its events.
    pub(super) classroom: Option<RoomKey>,
    /// The room of the lesson that the connection joined.
    pub(super) lesson: Option<RoomKey>,
    /// The connection's agent, which does not get its own events. `None` for a guest.
    pub(super) mark: Option<AgentMark>,
    /// When the token expires, in Unix milliseconds. Before connect_request, this is the deadline for connect_request,
    /// in milliseconds since the worker's start, so that a change of the wall clock does not move the deadline.
    pub(super) expires: u64,
    /// The reason if the gateway closed the connection.
    pub(super) closed_by_us: Option<LeftReason>,
    /// Whether the client connected without a classroom, so that it moves to the classrooms of its lessons.
    pub(super) roams: bool,
    /// Whether the client was told that the node drains.
    pub(super) knows_of_drain: bool,
    /// Whether the client said DISCONNECT or was told a final error, so that it does not resume its session.
    pub(super) ends_finally: bool,
    /// Whether the client's page answers pings.
    pub(super) heartbeat: bool,
    /// Counts the connection among those of its client until the permit is dropped.
    permit: ClientPermit,
    /// How many events the connection has sent recently.
    pub(super) meter: Meter,
    /// State that most connections do not have.
    pub(super) cold: Option<Box<ColdState>>,
}

/// What a connection waits for.
pub(super) enum PeerState {
    /// connect_request has not come yet.
    AwaitingConnect(Option<UnauthenticatedPermit>),
    /// The handler of connect runs. There is no session yet, and no message is sent before the handler's answer.
    Connecting(Option<UnauthenticatedPermit>),
    /// The handler of an event runs, and has the session.
    Busy,
    /// The session is here, and no handler runs.
    Open(Box<Session>),
    /// The client was let in without a classroom (PROTOCOL 11), and no handler runs.
    Outside(Box<Visitor>),
    /// The client was not let in, and no handler runs. The connection is being closed, or will be closed when
    /// [`Peer::expires`] says so. Until then the connection counts among those that have not been let in.
    Refused(#[expect(dead_code, reason = "it is counted while it lives")] Option<UnauthenticatedPermit>),
}

/// State that most connections do not have, or have only for a short time.
#[derive(Default)]
pub(super) struct ColdState {
    /// The value of [`Table::url_parameter`](crate::Table::url_parameter) for the handler of connect.
    pub url_parameter: Option<Box<str>>,
    /// The trace of the connection until it has a session.
    pub trace: Option<Box<TraceParent>>,
    /// The rooms that the connection joins, or whose list of agents it reads, while a handler runs.
    pub join_buffers: Vec<JoinBuffer>,
    /// Messages that came while a handler ran.
    pub pending: VecDeque<Box<str>>,
    /// The lesson that the connection leaves when the running handler is done.
    pub kicked_from: Option<LessonId>,
    /// The position in the stream if the connection resumes.
    pub cursor: Option<ResumeCursor>,
    /// The state of the replay while a replay runs.
    pub replaying: Option<ReplayState>,
    /// State that only a connection of Socket.IO has.
    pub socketio: Option<Box<SocketIoState>>,
}

/// State that a connection of Socket.IO has for a while.
pub(super) struct SocketIoState {
    /// The data of the handshake, until CONNECT.
    pub handshake: Result<Auth, PayloadError>,
    /// A packet some of whose attachments have not come yet.
    pub attachments: Option<Attachments>,
    /// Whether the client was in a namespace before. Packets for that namespace may still be on their way.
    pub was_connected: bool,
    /// `Some` after a CONNECT was refused: the time by which a CONNECT must have been let in, in the form of
    /// [`Peer::expires`].
    pub connect_by: Option<u64>,
}

impl Default for SocketIoState {
    fn default() -> Self {
        Self { handshake: Ok(Auth::default()), attachments: None, was_connected: false, connect_by: None }
    }
}

impl ColdState {
    /// Buffers the events of a room until the running handler is done. A replay that runs does not send the rest of its
    /// current part. It reads that part again when the handler is done.
    pub(super) fn buffer(&mut self, buffer: JoinBuffer) {
        self.join_buffers.push(buffer);
        self.replaying.iter_mut().for_each(|replaying| replaying.abandoned = true);
    }

    /// Records that a resuming connection joined a lesson. The lesson's events through `begins` are not sent.
    pub(super) fn start_lesson(&mut self, begins: Offset) {
        self.cursor.iter_mut().for_each(|cursor| cursor.start_lesson(begins));
    }

    fn is_empty(&self) -> bool {
        self.url_parameter.is_none()
            && self.trace.is_none()
            && self.join_buffers.is_empty()
            && self.pending.is_empty()
            && self.kicked_from.is_none()
            && self.cursor.is_none()
            && self.socketio.is_none()
    }
}

impl Peer {
    /// Creates the state of a connection that has just upgraded.
    #[must_use]
    pub(super) fn new(
        deadline: u64,
        url_parameter: Option<Box<str>>,
        permit: ClientPermit,
        waiting: Option<UnauthenticatedPermit>,
    ) -> Self {
        let cold =
            url_parameter.map(|value| Box::new(ColdState { url_parameter: Some(value), ..ColdState::default() }));
        Self {
            state: PeerState::AwaitingConnect(waiting),
            dialect: Dialect::Plain,
            classroom: None,
            lesson: None,
            mark: None,
            expires: deadline,
            closed_by_us: None,
            roams: false,
            knows_of_drain: false,
            ends_finally: false,
            heartbeat: false,
            permit,
            meter: Meter::default(),
            cold,
        }
    }

    /// Creates the state of a connection that speaks Socket.IO and has not sent CONNECT.
    #[must_use]
    pub(super) fn socketio(
        deadline: u64,
        state: SocketIoState,
        permit: ClientPermit,
        waiting: Option<UnauthenticatedPermit>,
    ) -> Self {
        let mut peer = Self::new(deadline, None, permit, waiting);
        peer.dialect = Dialect::SocketIo(Namespace::FIRST);
        peer.cold_mut().socketio = Some(Box::new(state));
        peer
    }

    /// Creates the state of a connection on the same transport after it has left its namespace.
    #[must_use]
    pub(super) fn without_namespace(&self, deadline: u64) -> Self {
        let state = SocketIoState { was_connected: true, ..SocketIoState::default() };
        let mut fresh = self.further(deadline, state, None);
        fresh.meter = self.meter;
        fresh
    }

    /// Creates the state of a connection in a further namespace of the same transport.
    #[must_use]
    pub(super) fn further(&self, deadline: u64, state: SocketIoState, waiting: Option<UnauthenticatedPermit>) -> Self {
        Self::socketio(deadline, state, self.permit.clone(), waiting)
    }

    /// Records that connect was refused, unless the client may try again and its next CONNECT is already awaited.
    pub(super) fn connect_refused(&mut self) {
        if let PeerState::Connecting(waiting) = &mut self.state {
            self.state = PeerState::Refused(waiting.take());
        }
    }

    /// Returns the client's address if the number of connections of each address is limited.
    pub(super) fn client(&self) -> Option<Subscriber> {
        self.permit.as_ref().map(|permit| permit.client())
    }

    /// Returns the permit for one more connection of the same address if addresses are limited.
    pub(super) fn permit(&self) -> ClientPermit {
        self.permit.clone()
    }

    /// Returns the token's user, or `None` while a handler runs.
    pub(super) fn user(&self) -> Option<(UserId, Audience)> {
        match &self.state {
            PeerState::Open(session) => session.user(),
            PeerState::Outside(visitor) => visitor.user(),
            PeerState::AwaitingConnect(_) | PeerState::Connecting(_) | PeerState::Busy | PeerState::Refused(_) => None,
        }
    }

    /// Returns whether connect_request has not come yet.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.state, PeerState::AwaitingConnect(_))
    }

    /// Returns true if the client was told that it is let in.
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, PeerState::Open(_) | PeerState::Busy | PeerState::Outside(_))
    }

    /// Returns the id with which the client resumes its session, or `None` while a handler has the session.
    pub(super) fn resume_id(&self) -> Option<ResumeId> {
        match &self.state {
            PeerState::Open(session) => session.membership.resume_id(),
            PeerState::Outside(visitor) => visitor.resume_id,
            PeerState::AwaitingConnect(_) | PeerState::Connecting(_) | PeerState::Busy | PeerState::Refused(_) => None,
        }
    }

    /// Records that the client was let in. If the client resumes, its cursor starts at the resumption's position.
    pub(super) fn admit(&mut self, agent: Option<&AgentId>, resumption: Option<(&Resumption, Follower)>) {
        self.mark = agent.map(AgentMark::new);
        if let Some((Resumption { position, replay, .. }, follower)) = resumption {
            let cold = self.cold_mut();
            cold.cursor = Some(ResumeCursor::after(position.offset, follower));
            cold.replaying = replay.is_some().then(|| ReplayState::after(position.offset));
        }
    }

    /// Returns the rooms that the connection is in, and those that it joins.
    pub(super) fn rooms(&self) -> impl Iterator<Item = RoomKey> + '_ {
        let joining = self.cold.iter().flat_map(|cold| cold.join_buffers.iter().map(|buffer| buffer.room));
        self.classroom.into_iter().chain(self.lesson).chain(joining)
    }

    /// Returns the cold state, and creates it if there is none.
    pub(super) fn cold_mut(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_default()
    }

    /// Records the trace of the connection if there is a trace.
    pub(super) fn join_trace(&mut self, trace: Option<TraceParent>) {
        if trace.is_some() {
            self.cold_mut().trace = trace.map(Box::new);
        }
    }

    /// Returns the trace of the connection while there is no session.
    pub(super) fn trace(&self) -> Option<TraceParent> {
        self.cold.as_ref()?.trace.as_deref().copied()
    }

    /// Takes the trace of the connection, because its session has the trace from now on.
    pub(super) fn take_trace(&mut self) -> Option<Box<TraceParent>> {
        let trace = self.cold.as_mut()?.trace.take();
        self.trim();
        trace
    }

    /// Frees the state of Socket.IO that is no longer needed, because the packet has all its attachments.
    pub(super) fn trim_socketio(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.socketio.take_if(|state| !state.was_connected && state.connect_by.is_none());
        }
        self.trim();
    }

    /// Records that the client is let in. Earlier refusals no longer count.
    pub(super) fn was_let_in(&mut self) {
        self.state = PeerState::Busy;
        if let Some(state) = self.cold.as_mut().and_then(|cold| cold.socketio.as_mut()) {
            state.connect_by = None;
            self.trim_socketio();
        }
    }

    /// Frees the cold state if it is empty.
    pub(super) fn trim(&mut self) {
        if self.cold.as_ref().is_some_and(|cold| cold.is_empty()) {
            self.cold = None;
        }
    }

    /// Keeps a message until the running handler is done. Returns false if `max` bytes wait now: then no more messages
    /// may be read.
    pub(super) fn push_pending(&mut self, text: &str, max: usize) -> bool {
        let pending = &mut self.cold_mut().pending;
        pending.push_back(text.into());
        pending.iter().map(|text| text.len() + PENDING_OVERHEAD).sum::<usize>() < max
    }

    /// Removes and returns the oldest message that waits.
    pub(super) fn pop_pending(&mut self) -> Option<Box<str>> {
        self.cold.as_mut()?.pending.pop_front()
    }

    /// Returns whether a replay still has to send an event of one of the connection's rooms. A replay sends no event of
    /// a lesson whose join still runs, because the offset from which the connection gets that lesson's events is not
    /// known yet, and all of them are buffered.
    pub(super) fn needs(&self, room: RoomKey, offset: Offset) -> bool {
        let Some(cold) = &self.cold else { return true };
        let joining = cold.join_buffers.iter().any(|buffer| buffer.room == room);
        !joining && cold.cursor.as_ref().is_none_or(|cursor| cursor.needs(offset, self.lesson == Some(room)))
    }

    /// Records that a replay of these rooms has sent every event up to this offset.
    pub(super) fn advance(&mut self, through: Offset, rooms: &[RoomKey]) {
        let lesson = self.lesson.is_some_and(|lesson| rooms.contains(&lesson));
        self.cold_mut().cursor.iter_mut().for_each(|cursor| cursor.advance(through, lesson));
    }

    /// Returns the offset through which the client has all events, if the connection resumes and all events through
    /// `flushed` have been sent. Offsets that the client is shown later are higher.
    pub(super) fn has_all_through(&mut self, flushed: Offset) -> Option<Offset> {
        let cold = self.cold.as_mut()?;
        let waits = cold.replaying.is_some() || !cold.join_buffers.is_empty();
        let cursor = cold.cursor.as_mut()?;
        if !waits {
            cursor.last = cursor.last.max(flushed);
        }
        Some(cursor.last)
    }

    /// Returns the position in the stream if the connection resumes.
    pub(super) fn cursor(&mut self) -> Option<&mut ResumeCursor> {
        self.cold.as_mut()?.cursor.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{gateway::Mailboxes, rooms::Rooms};
    use rollcall_bus::memory::{LogLimits, MemoryBus};

    #[test]
    fn no_handler_is_waited_for_once_connect_is_refused() {
        let mut peer = Peer::new(0, None, None, None);
        peer.connect_refused();
        assert!(matches!(peer.state, PeerState::AwaitingConnect(_)), "it may try again");
        peer.state = PeerState::Connecting(None);
        peer.connect_refused();
        assert!(matches!(peer.state, PeerState::Refused(_)));
    }

    #[tokio::test]
    async fn a_replay_sends_nothing_of_a_lesson_before_it_is_joined() {
        let (bus, _feed) = MemoryBus::start(LogLimits::default());
        let (follower, _) = Rooms::new(Arc::new(bus), Arc::new(Mailboxes::default()), 1 << 10).follow();
        let lesson = RoomKey::NONE;
        let mut peer = Peer::new(0, None, None, None);
        peer.cold_mut().cursor = Some(ResumeCursor::after(Offset(10), follower));
        peer.cold_mut().replaying = Some(ReplayState::after(Offset(10)));
        peer.cold_mut().join_buffers.push(JoinBuffer::joining(lesson));
        let needs = |peer: &Peer| [26, 60, 61, 62].map(|offset| peer.needs(lesson, Offset(offset)));
        assert_eq!(needs(&peer), [false; 4]);
        peer.cold_mut().join_buffers.clear();
        peer.lesson = Some(lesson);
        peer.cold_mut().start_lesson(Offset(60));
        assert_eq!(needs(&peer), [false, false, true, true]);
    }
}
