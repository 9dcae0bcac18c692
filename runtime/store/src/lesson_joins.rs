//! Connections join lessons and leave them. Every call takes a batch.
//!
//! Invariant: the row has the connection's latest change. A call that was given up may still be carried out, even after
//! a later call. So changes are numbered, and a change that comes too late writes nothing.
use async_trait::async_trait;
use rollcall_schema::{ClassroomId, LessonId, Role, Seat, SessionId, Sid, UserId};

use crate::{Lease, StoreError};

/// The number of a change of a connection's lesson. A later change has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LessonChange(pub i32);

impl LessonChange {
    /// Returns the change after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A request to join a lesson. In a batch each sid is unique.
#[derive(Clone, Debug)]
pub struct Join {
    /// The connection.
    pub sid: Sid,
    /// The session to write to. `None` for a guest.
    pub session: Option<SessionId>,
    /// The number of this change of the connection's lesson.
    pub change: LessonChange,
    /// The classroom of the connection. A lesson of another classroom is not found.
    pub classroom: ClassroomId,
    /// The lesson.
    pub lesson: LessonId,
    /// The user whose seat is looked up, and the role in which the user joins. `None` for a guest.
    pub user: Option<(UserId, Role)>,
    /// Whether to keep the removal of the field in the lesson before, as [`LeaveLesson::keep`] does.
    pub keep: bool,
}

/// The answer to [`Join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The classroom has no such lesson. Nothing was written.
    NotFound,
    /// The session no longer belongs to this connection (it was taken over, or has ended), or a later change is
    /// written. Nothing was written.
    NotOwner,
    /// Lesson and seat are written to the session's row.
    Lesson {
        /// How many seats the lesson has.
        seats: u32,
        /// The user's seat, if it has one.
        seat: Option<Seat>,
        /// Whether another session of the user is in the lesson that this session was in before. The user's field in
        /// Redis then belongs to that session.
        shared: bool,
    },
}

/// A request to set a session's lesson back to what it was before a change that failed. In a batch each sid is unique.
#[derive(Clone, Debug)]
pub struct RestoreLesson {
    /// The connection.
    pub sid: Sid,
    /// The connection's session.
    pub session: SessionId,
    /// The number after that of the failed change, so that the failed change writes nothing any more.
    pub change: LessonChange,
    /// The lesson before the change.
    pub lesson: Option<LessonOfSession>,
}

/// The lesson that a session is in, as its row has it.
#[derive(Clone, Debug)]
pub struct LessonOfSession {
    /// The lesson.
    pub lesson: LessonId,
    /// The user's seat, if there is one.
    pub seat: Option<Seat>,
    /// The role in which the lesson was joined.
    pub role: Option<Role>,
}

/// A request of an agent's connection to leave its lesson. In a batch each sid is unique.
#[derive(Clone, Debug)]
pub struct LeaveLesson {
    /// The connection.
    pub sid: Sid,
    /// The connection's session.
    pub session: SessionId,
    /// The number of this change of the connection's lesson.
    pub change: LessonChange,
    /// The lesson.
    pub lesson: LessonId,
    /// Whether Redis may lose the removal of the session's field, so that it is kept for ten minutes.
    pub keep: bool,
}

/// The answer to [`LeaveLesson`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LessonLeft {
    /// The session is in no lesson any more.
    Left {
        /// Whether another session of the same user is in the lesson. Then the user's field in Redis must be set to
        /// that session.
        shared: bool,
    },
    /// The session no longer belongs to this connection, or a later change is written. Nothing was written.
    NotOwner,
}

/// Joins and leaves lessons. No two entries of a batch have the same key, and answers come in the batch's order.
#[async_trait]
pub trait LessonJoins: Send + Sync {
    /// Makes agents and guests join lessons.
    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError>;
    /// Undoes failed changes. The answer is false if the session no longer belongs to the connection, or a later change
    /// is written; then nothing was written.
    async fn restore_lesson(&self, lease: Lease, batch: &[RestoreLesson]) -> Result<Vec<bool>, StoreError>;
    /// Makes agents leave their lessons. If the caller does not remove the field in Redis, the session's end does.
    async fn leave_lesson(&self, lease: Lease, batch: &[LeaveLesson]) -> Result<Vec<LessonLeft>, StoreError>;
}
