//! Sessions: a connection opens a session and closes it. Every call takes a batch.
use async_trait::async_trait;
use rollcall_schema::{
    AgentId, ClassroomId, JsonObject, LeftReason, NodeId, ResumeId, Role, SessionId, Sid, TraceParent, UserId,
};

use crate::{Lease, StoreError};

/// A request to enter a classroom. In a batch each pair of classroom and agent is unique.
#[derive(Clone, Debug)]
pub struct Open {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The token's `sub`, which the agent's id has in an encoded form.
    pub user: UserId,
    /// The connection that owns the session from now on.
    pub sid: Sid,
    /// The role in the token.
    pub role: Role,
    /// The token's `info`, if there is one.
    pub info: Option<JsonObject>,
    /// How many sessions the user may have at once. A new session beyond is not opened, but a takeover always succeeds.
    pub user_sessions: u32,
    /// The id by which the client finds the session again, if it may.
    pub resume_id: Option<ResumeId>,
    /// The trace of the connection, which the session's events carry.
    pub trace: Option<TraceParent>,
}

/// The answer to an [`Open`] that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// A new session, with agent.entered in the outbox, or the one that was taken over, with agent.updated if the
    /// takeover changed role or info.
    pub session: SessionId,
    /// The connection that owned the session before, and its node, whose next heartbeat also names it.
    pub replaced: Option<(NodeId, Sid)>,
}

/// A request to end a connection's session, if it still belongs to that connection. In a batch each pair of classroom
/// and agent is unique.
#[derive(Clone, Debug)]
pub struct Close {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The connection. A session that another connection owns is not changed.
    pub sid: Sid,
    /// Why the session ends.
    pub reason: LeftReason,
    /// The id by which the client can still find the session for a while. `None` if the end is final.
    pub resume_id: Option<ResumeId>,
}

/// The answer to [`Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The history row and agent.left are written, and the live row is deleted. If the session was in a lesson, there
    /// is a stale field.
    Left,
    /// There is no such session, or another connection owns it. Nothing was written.
    NotOwner,
}

/// The sessions of agents. No two entries of a batch have the same key, and answers come in the batch's order.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Opens or takes over sessions. The answer is `None` if the user has as many sessions as it may have. Batches that
    /// run at the same time do not count each other's sessions.
    async fn open(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError>;
    /// Ends sessions.
    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError>;
}
