//! The gateway's state of one connection. Small: there is one for every connection, idle or not.
use std::collections::VecDeque;

use rollcall_schema::{LeftReason, LessonId, Offset};

use crate::{
    handler::{
        connected::Resumption,
        session::{Presence, Session},
    },
    limits::{
        Meter,
        admission::{ClientPermit, UnauthenticatedPermit},
        network::Subscriber,
    },
    rooms::{Follower, RoomKey},
};

use super::{
    fanout::{AgentMark, JoinBuffer},
    replay::Replaying,
};

/// What keeping a message costs besides its bytes: its place in a queue that doubles, and the rest of its allocation.
const KEPT: usize = 2 * size_of::<Box<str>>() + 24;

/// One connection.
pub struct Peer {
    /// Where it is in its life.
    pub phase: PeerState,
    /// Its rooms here.
    pub classroom: Option<RoomKey>,
    /// See `classroom`.
    pub lesson: Option<RoomKey>,
    /// Which agent's events it does not get, and which it alone does.
    pub mark: Option<AgentMark>,
    /// When its token ends, in Unix milliseconds; before it is let in, when that must have happened, in milliseconds
    /// since the worker's start: of no clock that somebody may set.
    pub expires: u64,
    /// Why it was closed by us.
    pub kicked: Option<LeftReason>,
    /// Its client knows that the node drains.
    pub told: bool,
    /// Its place among those of its client; given back with it.
    pub place: ClientPermit,
    /// How many events it has sent lately.
    pub meter: Meter,
    /// What most connections do not have.
    pub extra: Option<Box<ColdState>>,
}

/// Where a connection is in its life.
pub enum PeerState {
    /// Nothing has come yet.
    ConnectContext(Option<UnauthenticatedPermit>),
    /// connect runs: there is no session yet, and no message may come before its answer.
    Connecting,
    /// A function runs, and has the session.
    Busy,
    /// The session is here.
    Open(Box<Session>),
}

/// What most connections do not have, or not for long.
#[derive(Default)]
pub struct ColdState {
    /// `lesson_id` of the upgrade request's query.
    pub asked: Option<LessonId>,
    /// Rooms at whose doors it stands, while a function runs.
    pub entering: Vec<JoinBuffer>,
    /// Messages that came while a function ran.
    pub waiting: VecDeque<Box<str>>,
    /// For who resumes: where it is.
    pub reached: Option<ResumeCursor>,
    /// For who gets what it missed before anything live.
    pub replaying: Option<Replaying>,
}

/// Where a connection that resumes is in the stream.
pub struct ResumeCursor {
    /// What is not later than this is a double: it was replayed, or came before the connection did.
    start: Offset,
    /// The same for its lesson, which it may have entered later: what came before, and may be on its way, is not for it.
    lesson: Offset,
    /// The last event that was sent, or was for others: it is shown no lower offset.
    pub last: Offset,
    /// Keeps the settled offsets coming.
    #[expect(dead_code, reason = "it is given back by being dropped")]
    pub follower: Follower,
}

impl ResumeCursor {
    /// It starts after this one.
    #[must_use]
    pub fn after(start: Offset, follower: Follower) -> Self {
        Self { start, lesson: start, last: start, follower }
    }

    fn enter_lesson(&mut self, here: Offset) {
        self.lesson = here;
    }

    /// Everything up to here was sent; of the lesson too, if it was asked for.
    fn pass(&mut self, upto: Offset, lesson: bool) {
        self.start = self.start.max(upto);
        self.last = self.last.max(upto);
        if lesson {
            self.lesson = self.lesson.max(upto);
        }
    }

    /// Whether an event of its classroom, or of its lesson, is yet to be sent.
    #[must_use]
    pub fn lacks(&self, offset: Offset, lesson: bool) -> bool {
        offset > if lesson { self.lesson } else { self.start }
    }
}

impl ColdState {
    /// A connection that resumes has joined a lesson, whose events up to here are not for it.
    pub fn enter_lesson(&mut self, here: Offset) {
        self.reached.iter_mut().for_each(|reached| reached.enter_lesson(here));
        self.replaying.iter_mut().for_each(|replaying| replaying.joined = Some(here));
    }

    fn is_empty(&self) -> bool {
        self.asked.is_none() && self.entering.is_empty() && self.waiting.is_empty() && self.reached.is_none()
    }
}

impl Peer {
    /// One that has just upgraded.
    #[must_use]
    pub fn new(
        deadline: u64,
        asked: Option<LessonId>,
        (place, waiting): (ClientPermit, Option<UnauthenticatedPermit>),
    ) -> Self {
        let extra = asked.map(|asked| Box::new(ColdState { asked: Some(asked), ..ColdState::default() }));
        Self {
            phase: PeerState::ConnectContext(waiting),
            classroom: None,
            lesson: None,
            mark: None,
            expires: deadline,
            kicked: None,
            told: false,
            place,
            meter: Meter::default(),
            extra,
        }
    }

    /// Its address, where the connections of addresses are limited.
    #[must_use]
    pub fn client(&self) -> Option<Subscriber> {
        self.place.as_ref().map(|place| place.client())
    }

    /// Whether nothing has come from it yet.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self.phase, PeerState::ConnectContext(_))
    }

    /// It was let in, and follows where it resumes.
    pub fn admit(&mut self, presence: Option<&Presence>, resumption: Option<(&Resumption, Follower)>) {
        self.mark = presence.map(|presence| AgentMark::of(&presence.agent));
        if let Some((Resumption { position, replay, .. }, follower)) = resumption {
            let extra = self.extra();
            extra.reached = Some(ResumeCursor::after(position.offset, follower));
            extra.replaying = replay.is_some().then(Replaying::default);
        }
    }

    /// The rooms that it is in, or at the door of.
    pub fn rooms(&self) -> impl Iterator<Item = RoomKey> + '_ {
        let entering = self.extra.iter().flat_map(|extra| extra.entering.iter().map(|entering| entering.room));
        self.classroom.into_iter().chain(self.lesson).chain(entering)
    }

    /// The rare part, made where it is missing.
    pub fn extra(&mut self) -> &mut ColdState {
        self.extra.get_or_insert_default()
    }

    /// Gives the rare part's memory back where nothing is in it.
    pub fn trim(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| extra.is_empty()) {
            self.extra = None;
        }
    }

    /// Keeps a message until the running function is done. False where that makes `most` bytes: no more is to be read.
    pub fn wait(&mut self, text: &str, most: usize) -> bool {
        let waiting = &mut self.extra().waiting;
        waiting.push_back(text.into());
        waiting.iter().map(|text| text.len() + KEPT).sum::<usize>() < most
    }

    /// The message whose turn it is.
    pub fn next_waiting(&mut self) -> Option<Box<str>> {
        self.extra.as_mut()?.waiting.pop_front()
    }

    /// Whether an event of one of its rooms is yet to be sent by a replay. Of a lesson that is being joined nothing is:
    /// it is not known yet from where its events come, and all of those are held.
    #[must_use]
    pub fn lacks(&self, room: RoomKey, offset: Offset) -> bool {
        let Some(extra) = &self.extra else { return true };
        let entering = extra.entering.iter().any(|entering| entering.room == room);
        !entering && extra.reached.as_ref().is_none_or(|reached| reached.lacks(offset, self.lesson == Some(room)))
    }

    /// A replay of these rooms has sent everything up to here.
    pub fn pass(&mut self, upto: Offset, rooms: &[RoomKey]) {
        let lesson = self.lesson.is_some_and(|lesson| rooms.contains(&lesson));
        self.extra().reached.iter_mut().for_each(|reached| reached.pass(upto, lesson));
    }

    /// Where it is, if it resumes.
    pub fn reached(&mut self) -> Option<&mut ResumeCursor> {
        self.extra.as_mut()?.reached.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{gateway::Mailboxes, rooms::Rooms};
    use rollcall_bus::memory::{LogLimits, MemoryBus};

    #[tokio::test]
    async fn of_a_lesson_entered_during_a_replay_nothing_is_left_out_in_the_middle() {
        let (bus, _feed) = MemoryBus::start(LogLimits::default());
        let (follower, _) = Rooms::new(Arc::new(bus), Mailboxes::default(), 1 << 10).follow();
        let mut reached = ResumeCursor::after(Offset(10), follower);
        reached.enter_lesson(Offset(60));
        let lacks = |reached: &ResumeCursor| [26, 44, 61].map(|offset| reached.lacks(Offset(offset), true));
        assert_eq!(lacks(&reached), [false, false, true]);
        // A replay of the classroom alone ends.
        reached.pass(Offset(50), false);
        assert_eq!(lacks(&reached), [false, false, true]);
        assert!(!reached.lacks(Offset(50), false) && reached.lacks(Offset(51), false));
        reached.pass(Offset(61), true);
        assert_eq!(lacks(&reached), [false; 3]);
    }

    #[tokio::test]
    async fn a_replay_shows_nothing_of_a_lesson_before_it_is_joined() {
        let (bus, _feed) = MemoryBus::start(LogLimits::default());
        let (follower, _) = Rooms::new(Arc::new(bus), Mailboxes::default(), 1 << 10).follow();
        let lesson = RoomKey::NONE;
        let mut peer = Peer::new(0, None, (None, None));
        peer.extra().reached = Some(ResumeCursor::after(Offset(10), follower));
        peer.extra().replaying = Some(Replaying::default());
        peer.extra().entering.push(JoinBuffer { room: lesson, held: Vec::new(), overflowed: false });
        let lacks = |peer: &Peer| [26, 60, 61, 62].map(|offset| peer.lacks(lesson, Offset(offset)));
        assert_eq!(lacks(&peer), [false; 4]);
        // A replay of the classroom goes further than where the lesson begins.
        peer.pass(Offset(61), &[]);
        peer.extra().entering.clear();
        peer.lesson = Some(lesson);
        peer.extra().enter_lesson(Offset(60));
        assert_eq!(lacks(&peer), [false, false, true, true]);
        assert_eq!(peer.extra().replaying.as_ref().and_then(|replaying| replaying.joined), Some(Offset(60)));
    }
}
