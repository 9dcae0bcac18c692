//! Sessions: a connection opens one, joins lessons with it, and closes it. Every call takes a batch.
use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LeftReason, LessonId, NodeId, Role, Seat, SessionId, Sid, UserId};

use crate::{Lease, StoreError};

/// An agent enters a classroom. Unique key in a batch: classroom and agent.
#[derive(Clone, Debug)]
pub struct Open {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The token's `sub`, which the agent's id holds in another spelling.
    pub user: UserId,
    /// The connection that owns the session from now on.
    pub sid: Sid,
    /// The token's role.
    pub role: Role,
    /// How many sessions the user may have at once: a new one beyond is not opened; a takeover always is.
    pub user_sessions: u32,
}

/// The answer to [`Open`] that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// A new one, with agent.entered in the outbox; or the one that was taken over, without.
    pub session: SessionId,
    /// The connection that owned it until now, and its node, whose next heartbeat says so too.
    pub replaced: Option<(NodeId, Sid)>,
}

/// A connection joins a lesson. Unique key of a batch: the sid.
#[derive(Clone, Debug)]
pub struct Join {
    /// The connection.
    pub sid: Sid,
    /// The session to write to; none for a guest.
    pub session: Option<SessionId>,
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
    /// The session is no longer this connection's (taken over, or ended); nothing was written.
    NotOwner,
    /// Lesson and seat are in the session's row.
    Lesson {
        /// How many seats the lesson has.
        seats: u32,
        /// The user's own seat.
        seat: Option<Seat>,
    },
}

/// Sets a session's lesson back to what it was before a join that failed. Unique key: the sid.
#[derive(Clone, Debug)]
pub struct RollbackJoin {
    /// The connection.
    pub sid: Sid,
    /// Its session.
    pub session: SessionId,
    /// The lesson and seat before.
    pub lesson: Option<(LessonId, Option<Seat>)>,
}

/// A connection's session ends, if it is still that connection's. Unique key: classroom and agent.
#[derive(Clone, Debug)]
pub struct Close {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The connection: a session that another connection owns is left alone.
    pub sid: Sid,
    /// Why the session ends.
    pub reason: LeftReason,
}

/// The answer to [`Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// History row and agent.left are written, the live row is gone; if it was in a lesson, there is a stale field.
    Left,
    /// There is no such session, or another connection owns it: nothing was written.
    NotOwner,
}

/// The sessions of agents. A batch has no two entries of one key; answers come in the batch's order.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Opens or takes over sessions; none where the user has as many as it may. Batches that run at the same time do not
    /// count each other's.
    async fn open(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError>;
    /// Agents and guests join lessons.
    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError>;
    /// Undoes joins. Sessions that are no longer the connection's are left alone.
    async fn rollback(&self, lease: Lease, batch: &[RollbackJoin]) -> Result<Vec<()>, StoreError>;
    /// Ends sessions.
    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError>;
}
