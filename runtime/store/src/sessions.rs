//! Sessions: a connection opens one, and closes it. Every call takes a batch.
use async_trait::async_trait;
use rollcall_schema::{
    AgentId, ClassroomId, JsonObject, LeftReason, NodeId, ResumeId, Role, SessionId, Sid, TraceParent, UserId,
};

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
    /// The token's `info`, if there is one.
    pub info: Option<JsonObject>,
    /// How many sessions the user may have at once: a new one beyond is not opened; a takeover always is.
    pub user_sessions: u32,
    /// The id under which the client finds the session again, if it is one that may.
    pub resume_id: Option<ResumeId>,
    /// The trace that the connection belongs to, which the session's events carry.
    pub trace: Option<TraceParent>,
}

/// The answer to [`Open`] that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// A new one, with agent.entered in the outbox; or the one that was taken over, with agent.updated where that changed
    /// role or info.
    pub session: SessionId,
    /// The connection that owned it until now, and its node, whose next heartbeat says so too.
    pub replaced: Option<(NodeId, Sid)>,
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
    /// The id under which the client still finds the session for a while; none where its end is final.
    pub resume_id: Option<ResumeId>,
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
    /// Ends sessions.
    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError>;
}
