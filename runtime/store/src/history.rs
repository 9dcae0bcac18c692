//! Sessions of the past and the present of a classroom: who was there, from when to when, and why they left.
//!
//! Invariant: a page costs the same however long the history is: each begins where the one before ended, by an index.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, SessionId, UserId};

use crate::StoreError;

/// A moment by the database's clock, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

/// One session in a classroom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The session.
    pub session: SessionId,
    /// The agent.
    pub agent: AgentId,
    /// The user.
    pub user: UserId,
    /// The lesson that it is in, or was in when it ended.
    pub lesson: Option<LessonId>,
    /// When it began.
    pub entered: Moment,
    /// Its end; none while it lives.
    pub end: Option<VisitEnd>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisitEnd {
    /// When the session ended.
    pub at: Moment,
    /// The reason as it is stored: a newer version may know others.
    pub reason: String,
}

/// A place in a classroom's history, which is in the order in which sessions ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPosition {
    /// When a session ended.
    pub ended: Moment,
    /// The session that ended then; of several at one moment it tells them apart.
    pub session: SessionId,
}

/// What one batch of a sweep of the history found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySweep {
    /// How many rows it deleted.
    pub deleted: u64,
    /// Where the next batch begins; none if no later row can be old enough.
    pub next: Option<SessionId>,
}

/// The history of sessions, and those that live.
#[async_trait]
pub trait History: Send + Sync {
    /// Sessions of a classroom that live, ids above `after`, ascending, at most `max`.
    async fn present(&self, classroom: ClassroomId, after: SessionId, max: usize) -> Result<Vec<Visit>, StoreError>;
    /// Sessions of a classroom that ended after a position, in the order of their ends, at most `max`.
    async fn past(&self, classroom: ClassroomId, after: HistoryPosition, max: usize) -> Result<Vec<Visit>, StoreError>;
    /// Looks at `max` rows with ids above `after`, and deletes those that ended longer ago than `keep`. None while another
    /// node does the same.
    async fn sweep_history(
        &self,
        keep: Duration,
        after: SessionId,
        max: usize,
    ) -> Result<Option<HistorySweep>, StoreError>;
}
