//! What presence knows of one connection: its session, the lesson that it joined, and its field in Redis.
//!
//! Invariant: only calls of [`crate::Presence`] change a membership, and only to what the client is told. SQL and Redis
//! have the same values, or are restored to them.
use std::time::Instant;

use rollcall_keys::KeyField;
use rollcall_schema::{AgentId, ClassroomId, LeftReason, LessonId, ResumeId, Role, Seat, SessionId, Sid, UserId};
use rollcall_store::{LessonChange, Remembered};

use crate::lesson_restore::LessonRestore;

/// A connection's part in a classroom. It is small, because every connection has one.
#[derive(Debug)]
pub struct Membership {
    pub(crate) sid: Sid,
    pub(crate) classroom: ClassroomId,
    /// The session. `None` for a guest.
    pub(crate) agent: Option<AgentSession>,
    pub(crate) lesson: Option<JoinedLesson>,
    /// The number of the latest change of the lesson in SQL.
    pub(crate) change: LessonChange,
    /// The task that puts back a change that was not completed.
    pub(crate) restore: Option<Box<LessonRestore>>,
    since: Instant,
    /// The id under which the client finds the session again after a break.
    pub(crate) resume_id: Option<ResumeId>,
}

/// The row of `agent_session`.
#[derive(Debug)]
pub(crate) struct AgentSession {
    pub(crate) id: SessionId,
    pub(crate) agent: AgentId,
}

/// A lesson that a connection joined.
#[derive(Debug)]
pub(crate) struct JoinedLesson {
    pub(crate) lesson: LessonId,
    pub(crate) seat: Option<Seat>,
    /// The role for which the user's field in Redis names this connection. `None` if no field does, as for a guest.
    pub(crate) field: Option<Role>,
}

impl Membership {
    /// Returns the membership of a guest: it has no row in SQL, no event, and nothing that others see.
    #[must_use]
    pub fn guest(sid: Sid, classroom: ClassroomId) -> Self {
        Self {
            sid,
            classroom,
            agent: None,
            lesson: None,
            change: LessonChange::default(),
            restore: None,
            since: Instant::now(),
            resume_id: None,
        }
    }

    pub(crate) fn agent(sid: Sid, classroom: ClassroomId, session: AgentSession, resume_id: Option<ResumeId>) -> Self {
        Self { agent: Some(session), resume_id, ..Self::guest(sid, classroom) }
    }

    /// Returns the connection's id.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.sid
    }

    /// Returns the classroom that the connection is in.
    #[must_use]
    pub fn classroom(&self) -> ClassroomId {
        self.classroom
    }

    /// Returns the session and its agent, or `None` for a guest.
    #[must_use]
    pub fn session(&self) -> Option<(SessionId, &AgentId)> {
        self.agent.as_ref().map(|session| (session.id, &session.agent))
    }

    /// Returns the lesson that the connection joined.
    #[must_use]
    pub fn lesson(&self) -> Option<&LessonId> {
        self.lesson.as_ref().map(|joined| &joined.lesson)
    }

    /// Records that the connection is in no lesson any more. Returns the user's field in that lesson, if it names this
    /// connection.
    pub(crate) fn take_lesson(&mut self, user: Option<UserId>) -> Option<KeyField> {
        let JoinedLesson { lesson, field, .. } = self.lesson.take()?;
        user.filter(|_| field.is_some()).map(|user| KeyField { lesson, user, sid: self.sid })
    }

    /// Returns the id under which the client may find the session again after a break.
    #[must_use]
    pub fn resume_id(&self) -> Option<ResumeId> {
        self.resume_id
    }

    /// Makes the session's end final, so that its client does not find it again.
    pub fn forget_resume_id(&mut self) {
        self.resume_id = None;
    }

    /// Returns the user's seat in the lesson, if it has one.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        self.lesson.as_ref().and_then(|joined| joined.seat)
    }

    /// Returns what the node knows of an agent's session, in case the database loses the row. `reason` is the reason of
    /// its end.
    #[must_use]
    pub fn remembered(&self, reason: LeftReason) -> Option<Remembered> {
        let AgentSession { id, agent } = self.agent.as_ref()?;
        Some(Remembered {
            session: *id,
            classroom: self.classroom,
            agent: agent.clone(),
            user: agent.user(),
            sid: self.sid,
            lesson: self.lesson().cloned(),
            age: self.since.elapsed(),
            sets_state: false,
            reason,
            resume_id: self.resume_id,
        })
    }
}
