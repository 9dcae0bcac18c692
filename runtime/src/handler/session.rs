//! What a handler sees of a connection: who it is, where it is.
//!
//! Invariant: `connect` makes it, events borrow it, `disconnect` consumes it; it is in one place at a time, so one event
//! of a connection runs at a time.
use std::time::Instant;

use rollcall_schema::{
    AgentId, Audience, ClassroomId, LeftReason, LessonId, Role, RoomId, Seat, SessionId, Sid, UserId,
};

use crate::{
    auth::{Claims, Grants},
    handler::{connect_context::ConnectContext, sids},
};
use rollcall_keys::KeyField;
use rollcall_store::Remembered;
use rollcall_websocket::SocketId;

/// A connection that was let in. Small, because every connection keeps one.
#[derive(Debug)]
pub struct Session {
    /// The connection's name outside.
    pub sid: Sid,
    /// Where it is.
    pub classroom: ClassroomId,
    /// What makes it visible; guests have none.
    pub presence: Option<Presence>,
    /// What its token says; a guest has none until a join_lesson brings one.
    held: Held,
    /// Whether it asked for offsets.
    pub resumes: bool,
    /// The lesson it joined.
    pub place: Option<JoinedLesson>,
    /// What a join may have written in Redis without saying so: gone with the session, as the place is.
    pub tried: Option<Box<KeyField>>,
    /// When its connection was let in.
    since: Instant,
    /// `lesson_id` of the upgrade request's query, the first fallback of a join_lesson without one.
    pub asked: Option<LessonId>,
}

/// What a token says, but for what the agent's id says already: that is a third of a parked connection's memory.
#[derive(Debug)]
enum Held {
    Nothing,
    OfAgent { role: Role, expires: u64, limits: Option<Box<Grants>> },
    OfGuest(Box<Claims>),
}

/// The row in `agent_session`.
#[derive(Debug)]
pub struct Presence {
    /// Its id.
    pub session: SessionId,
    /// Whose.
    pub agent: AgentId,
}

/// A lesson joined, and the seat in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedLesson {
    /// The lesson.
    pub lesson: LessonId,
    /// The user's seat, where there is one.
    pub seat: Option<Seat>,
    /// As what the user's keys in Redis name this connection; none for a guest.
    pub written: Option<Role>,
}

impl Session {
    /// An agent's.
    #[must_use]
    pub fn agent(greeting: ConnectContext, classroom: ClassroomId, presence: Presence, claims: Claims) -> Self {
        let mut session = Self { presence: Some(presence), ..Self::guest(greeting, classroom) };
        session.hold(claims);
        session
    }

    /// Somebody's who came without a token.
    #[must_use]
    pub fn guest(greeting: ConnectContext, classroom: ClassroomId) -> Self {
        let ConnectContext { sid, asked, .. } = greeting;
        Self {
            sid,
            classroom,
            presence: None,
            resumes: false,
            held: Held::Nothing,
            place: None,
            tried: None,
            since: Instant::now(),
            asked,
        }
    }

    /// What its token says: the seed's `{"client_id", "role"}`, and what it may enter.
    #[must_use]
    pub fn claims(&self) -> Option<Claims> {
        match &self.held {
            Held::Nothing => None,
            Held::OfGuest(claims) => Some(Claims::clone(claims)),
            Held::OfAgent { role, expires, limits } => {
                let (user, audience) = self.user()?;
                Some(Claims { user, audience, role: *role, expires: *expires, limits: limits.clone() })
            }
        }
    }

    /// Whose token it is: `sub` and `aud`.
    #[must_use]
    pub fn user(&self) -> Option<(UserId, Audience)> {
        match (&self.held, &self.presence) {
            (Held::OfGuest(claims), _) => Some((claims.user.clone(), claims.audience.clone())),
            (Held::OfAgent { .. }, Some(Presence { agent, .. })) => Some((agent.user(), agent.audience())),
            (Held::OfAgent { .. }, None) | (Held::Nothing, _) => None,
        }
    }

    /// What the node remembers of an agent's session, should the database forget it.
    #[must_use]
    pub fn remembered(&self, reason: LeftReason) -> Option<Remembered> {
        let (Presence { session, agent }, (user, _)) = (self.presence.as_ref()?, self.user()?);
        Some(Remembered {
            session: *session,
            classroom: self.classroom,
            agent: agent.clone(),
            user,
            sid: self.sid,
            lesson: self.place.as_ref().map(|place| place.lesson.clone()),
            age: self.since.elapsed(),
            reason,
        })
    }

    /// Another token of the same user, or a guest's first.
    pub fn hold(&mut self, claims: Claims) {
        self.held = if self.presence.is_some() {
            Held::OfAgent { role: claims.role, expires: claims.expires, limits: claims.limits }
        } else {
            Held::OfGuest(Box::new(claims))
        };
    }

    /// Drops what only requests need, because a session without its connection may be kept for long.
    pub fn forget_rights(&mut self) {
        self.asked = None;
        match &mut self.held {
            Held::Nothing => {}
            Held::OfAgent { limits, .. } => *limits = None,
            Held::OfGuest(claims) => claims.limits = None,
        }
    }

    /// When its token ends, in Unix seconds.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        match &self.held {
            Held::Nothing => None,
            Held::OfAgent { expires, .. } => Some(*expires),
            Held::OfGuest(claims) => Some(claims.expires),
        }
    }

    /// The socket, for entering rooms. A session is only ever where its connection is, so its sid is this process's.
    #[must_use]
    pub fn socket(&self) -> SocketId {
        sids::socket_of_own(self.sid)
    }

    /// The rooms that its events come from; a guest gets nothing of the classroom's.
    #[must_use]
    pub fn rooms(&self) -> Vec<RoomId> {
        let classroom = self.presence.is_some().then_some(RoomId::Classroom(self.classroom));
        let lesson = self.place.as_ref().map(|place| RoomId::Lesson(place.lesson.clone()));
        classroom.into_iter().chain(lesson).collect()
    }
}
