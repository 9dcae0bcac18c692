//! A database that lost its last commits while connections live (PROTOCOL 5): after a failover to a replica, or with a
//! backup that was put back.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LeftReason, LessonId, NodeId, ResumeId, SessionId, Sid, UserId};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Close, Lease, StoreError};

/// A session as its node has it in memory: enough to write its end where the database has lost its row.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Its id.
    pub session: SessionId,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The agent's user.
    pub user: UserId,
    /// The connection that owns it.
    pub sid: Sid,
    /// The lesson that it is in.
    pub lesson: Option<LessonId>,
    /// How long ago this connection opened it.
    pub age: Duration,
    /// Whether this connection has set a state, which the database may have lost.
    pub sets_state: bool,
    /// The reason to write, where its end must be written.
    pub reason: LeftReason,
    /// The id of [`Close::resume_id`](crate::Close).
    pub resume_id: Option<ResumeId>,
}

impl Remembered {
    /// The close that ends it.
    #[must_use]
    pub fn close(&self) -> Close {
        Close {
            classroom: self.classroom,
            agent: self.agent.clone(),
            sid: self.sid,
            reason: self.reason,
            resume_id: self.resume_id,
        }
    }
}

/// How a remembered session stands in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its row is there, this connection owns it, and it is in the connection's lesson.
    Owned,
    /// The agent has entered the classroom again with another connection.
    Replaced,
    /// The row is there, but the takeover or the latest join is lost: an earlier connection owns it, or it is in another
    /// lesson. Or its end is in the history already.
    NotOwned,
    /// There was neither a row nor a history row: the history row and agent.left are written now.
    Lost,
}

/// What was removed from a database that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Sessions that were live when the backup was made, and are in the history now.
    pub sessions: u64,
    /// Events that waited in the outbox, and are gone.
    pub events: u64,
}

/// Finds and repairs what a database has lost.
#[async_trait]
pub trait Recovery: Send + Sync {
    /// The incarnation of the database that the latest connection found: it changes when the database has lost its last
    /// commits. None before there are tables.
    fn incarnation(&self) -> watch::Receiver<Option<Uuid>>;
    /// Compares sessions that this node remembers with the database, and writes the ends of those that are lost, and the
    /// stale fields of connections that do not own theirs. Unique key of a batch: the session.
    async fn verify(&self, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError>;
    /// Sessions of this node with ids above `after`, ascending, at most `max`, each as an end with `node_lost`.
    async fn owned_sessions(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, Close)>, StoreError>;
    /// Prepares a database that was put back from a backup: a new installation, higher ids, an empty outbox, and no live
    /// session.
    ///
    /// # Errors
    /// [`StoreError::Refused`] while a node is alive.
    async fn prepare_restored(&self) -> Result<Restored, StoreError>;
}
