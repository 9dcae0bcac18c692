//! Ends of sessions that an operator asks for, on whichever node they are.
//!
//! Invariant: the end is written here and now, also where the session's node is stopped: history and agent.left say `kicked`,
//! and no connection can join with the session or take it over any more. Its node closes the connection afterwards, told by its
//! heartbeat; the user's field in the key store stays until then, because a join of the connection may be under way.
use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, NodeId, SessionId, Sid, UserId};

use crate::{Lease, StoreError};

/// Which sessions end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KickTarget {
    /// This one.
    Session(SessionId),
    /// Those of an agent, in one classroom or in all.
    Agent(AgentId, Option<ClassroomId>),
    /// Those of a user, in one classroom or in all.
    User(UserId, Option<ClassroomId>),
}

/// A session that was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KickedSession {
    /// Its id.
    pub session: SessionId,
    /// The agent.
    pub agent: AgentId,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The node of its connection.
    pub node: NodeId,
    /// Its connection.
    pub sid: Sid,
}

/// Ends by operators.
#[async_trait]
pub trait Kicks: Send + Sync {
    /// Ends up to `max` of these sessions, whichever node owns them; `lease` is the caller's.
    async fn kick(&self, lease: Lease, target: &KickTarget, max: usize) -> Result<Vec<KickedSession>, StoreError>;
    /// The connections of this node that are still to be closed, also where its lease was taken.
    async fn kicks(&self, node: NodeId) -> Result<Vec<Sid>, StoreError>;
    /// These connections have been told: heartbeats name them no more.
    async fn ack_kicks(&self, node: NodeId, kicked: &[Sid]) -> Result<(), StoreError>;
}
