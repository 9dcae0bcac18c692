//! Recovery from a loss of commits while connections are open (PROTOCOL 5), which happens after a failover to a
//! replica, or when a backup was put back.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{
    AgentId, ClassroomId, LeftReason, LessonId, NodeId, ResumeId, SessionError, SessionId, Sid, UserId,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Close, Lease, StoreError};

/// A session as its node remembers it: enough to write its end if the database has lost its row.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The session's id.
    pub session: SessionId,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The agent's user.
    pub user: UserId,
    /// The connection that owns the session.
    pub sid: Sid,
    /// The lesson that the connection has joined.
    pub lesson: Option<LessonId>,
    /// How long ago this connection opened the session.
    pub age: Duration,
    /// Whether this connection has set a state, which the database may have lost.
    pub sets_state: bool,
    /// The reason of the end, if it must be written.
    pub reason: LeftReason,
    /// The resume id, as in [`Close::resume_id`](crate::Close).
    pub resume_id: Option<ResumeId>,
}

impl Remembered {
    /// Returns the close that ends this session.
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

/// What the database knows of a remembered session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The database has its row, this connection owns it, and it is in the connection's lesson.
    Owned,
    /// The agent has entered the classroom again with another connection.
    Replaced,
    /// An operator has ended the session, and its client has not been told yet.
    Kicked,
    /// The row exists, but the takeover or the latest join is lost: an earlier connection owns it, or it is in another
    /// lesson. Or the history has its end already.
    NotOwned,
    /// There was neither a row nor a history row. The history row and agent.left are written now.
    Lost,
}

impl Standing {
    /// Returns the error that the session's client is told, or `None` if the session goes on.
    #[must_use]
    pub fn error(self) -> Option<SessionError> {
        match self {
            Self::Owned => None,
            Self::Replaced => Some(SessionError::Replaced),
            Self::Kicked => Some(SessionError::Kicked),
            Self::NotOwned | Self::Lost => Some(SessionError::InternalServerError),
        }
    }
}

/// What was removed from a database that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The number of sessions that were live when the backup was made. They are in the history now.
    pub sessions: u64,
    /// The number of events that waited in the outbox, and were deleted.
    pub events: u64,
}

/// Finds and repairs what a database has lost.
#[async_trait]
pub trait Recovery: Send + Sync {
    /// Returns the incarnation of the database that the latest connection found, or `None` before there are tables. It
    /// changes when the database has lost its last commits.
    fn incarnation(&self) -> watch::Receiver<Option<Uuid>>;
    /// Compares sessions that this node remembers with the database. Writes the ends of those that are lost, and the
    /// stale fields of connections that do not own their session. In a batch each session is unique.
    async fn verify(&self, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError>;
    /// Returns the sessions of this node with ids above `after`, ascending, at most `max`, each as remembered for an
    /// end with `node_lost`.
    async fn owned_sessions(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, Close)>, StoreError>;
    /// Prepares a database that was put back from a backup: a new installation, higher ids, an empty outbox, and no
    /// live session.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] while a node is alive.
    async fn prepare_restored(&self) -> Result<Restored, StoreError>;
}
