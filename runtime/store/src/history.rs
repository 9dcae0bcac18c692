//! Past and present sessions of a classroom: which agents were there, from when to when, and why they left.
//!
//! Invariant: a page costs the same however long the history is, because an index leads to the row at which the page
//! before it ended.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, SessionId, UserId};

use crate::StoreError;

/// A time of the database's clock, in microseconds since 1970.
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
    /// The lesson of the session, or its last lesson if it has ended.
    pub lesson: Option<LessonId>,
    /// When the session began.
    pub entered: Moment,
    /// The end of the session. `None` while it lives.
    pub end: Option<VisitEnd>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisitEnd {
    /// When the session ended.
    pub at: Moment,
    /// The reason as it is stored. A newer version may know other reasons.
    pub reason: String,
}

/// A position in a classroom's history, which is ordered by the ends of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPosition {
    /// When a session ended.
    pub ended: Moment,
    /// The session that ended then. It distinguishes sessions that ended at the same time.
    pub session: SessionId,
}

/// The result of one batch of a sweep of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySweep {
    /// How many rows were deleted.
    pub deleted: u64,
    /// Where the next batch begins. `None` if no later row can be old enough.
    pub next: Option<SessionId>,
}

/// The history of sessions, and the sessions that live.
#[async_trait]
pub trait History: Send + Sync {
    /// Returns the sessions of a classroom that live, with ids above `after`, ascending, at most `max`.
    async fn present(&self, classroom: ClassroomId, after: SessionId, max: usize) -> Result<Vec<Visit>, StoreError>;
    /// Returns the sessions of a classroom that ended after a position, in the order of their ends, at most `max`.
    async fn past(&self, classroom: ClassroomId, after: HistoryPosition, max: usize) -> Result<Vec<Visit>, StoreError>;
    /// Checks `max` rows with ids above `after`, and deletes those that ended longer ago than `keep`. Returns `None`
    /// while another node does the same.
    async fn sweep_history(
        &self,
        keep: Duration,
        after: SessionId,
        max: usize,
    ) -> Result<Option<HistorySweep>, StoreError>;
}
