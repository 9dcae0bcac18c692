//! Lessons that sessions are in: a connection joins one, and leaves it. Every call takes a batch.
//!
//! Invariant: the row says what the connection's latest change says. A call may be given up and be carried out all the same,
//! after one that was made later: changes are numbered, and one that comes too late writes nothing.
use async_trait::async_trait;
use rollcall_schema::{ClassroomId, LessonId, Seat, SessionId, Sid, UserId};

use crate::{Lease, StoreError};

/// The number of a change of a connection's lesson: higher ones are later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LessonChange(pub i32);

impl LessonChange {
    /// The change after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A connection joins a lesson. Unique key of a batch: the sid.
#[derive(Clone, Debug)]
pub struct Join {
    /// The connection.
    pub sid: Sid,
    /// The session to write to; none for a guest.
    pub session: Option<SessionId>,
    /// Which change of the connection's lesson this is.
    pub change: LessonChange,
    /// The classroom that the connection is in: a lesson of another is not found.
    pub classroom: ClassroomId,
    /// The lesson.
    pub lesson: LessonId,
    /// The user whose seat is looked up; none for a guest.
    pub user: Option<UserId>,
}

/// The answer to [`Join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// No such lesson in this classroom; nothing was written.
    NotFound,
    /// The session is no longer this connection's (taken over, or ended), or a later change is written; nothing was written.
    NotOwner,
    /// Lesson and seat are in the session's row.
    Lesson {
        /// How many seats the lesson has.
        seats: u32,
        /// The user's own seat.
        seat: Option<Seat>,
    },
}

/// Sets a session's lesson back to what it was before a change that failed. Unique key: the sid.
#[derive(Clone, Debug)]
pub struct RestoreLesson {
    /// The connection.
    pub sid: Sid,
    /// Its session.
    pub session: SessionId,
    /// The number after that of the change that failed: then that one writes nothing any more.
    pub change: LessonChange,
    /// The lesson and seat before.
    pub lesson: Option<(LessonId, Option<Seat>)>,
}

/// An agent's connection leaves its lesson. Unique key: the sid.
#[derive(Clone, Debug)]
pub struct LeaveLesson {
    /// The connection.
    pub sid: Sid,
    /// Its session.
    pub session: SessionId,
    /// Which change of the connection's lesson this is.
    pub change: LessonChange,
    /// The lesson.
    pub lesson: LessonId,
}

/// The answer to [`LeaveLesson`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LessonLeft {
    /// The session is in no lesson any more.
    Left {
        /// Another session of the same user is in the lesson: the user's field in Redis is that one's then.
        shared: bool,
    },
    /// The session is no longer this connection's, or a later change is written; nothing was written.
    NotOwner,
}

/// Joins and leaves lessons. A batch has no two entries of one key; answers come in the batch's order.
#[async_trait]
pub trait LessonJoins: Send + Sync {
    /// Agents and guests join lessons.
    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError>;
    /// Undoes changes that failed. False where the session is no longer the connection's, or a later change is written;
    /// nothing was written then.
    async fn restore_lesson(&self, lease: Lease, batch: &[RestoreLesson]) -> Result<Vec<bool>, StoreError>;
    /// Agents leave their lessons. The session's end still removes the field in Redis, should its caller not come to it.
    async fn leave_lesson(&self, lease: Lease, batch: &[LeaveLesson]) -> Result<Vec<LessonLeft>, StoreError>;
}
