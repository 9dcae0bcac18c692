//! Ends of sessions that an operator asks for, on whichever node they are.
//!
//! Invariant: the end is written here and now, also where the session's node is stopped: history and agent.left say `kicked`,
//! and no connection can join with the session or take it over any more. Its node closes the connection afterwards, told by its
//! heartbeat; the user's field in the key store stays until then, because a join of the connection may be under way.
use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, NodeId, SessionId, Sid, UserId};

use crate::{Lease, StoreError};

/// Which sessions end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KickTarget {
    /// The session with this id.
    Session(SessionId),
    /// The sessions of an agent, in one classroom or in all.
    Agent(AgentId, Option<ClassroomId>),
    /// The sessions of a user, in one classroom or in all.
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

/// What a node must do to one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kick {
    /// The connection.
    pub sid: Sid,
    /// The lesson to take it out of, if it is still in it; none: its session has ended, and it is to be closed.
    pub lesson: Option<LessonId>,
}

/// Ends by operators.
#[async_trait]
pub trait Kicks: Send + Sync {
    /// Ends up to `max` of these sessions, whichever node owns them; `lease` is the caller's.
    async fn kick(&self, lease: Lease, target: &KickTarget, max: usize) -> Result<Vec<KickedSession>, StoreError>;
    /// Notes that a session's connection is to leave its lesson, and returns its node and what is noted; none where the
    /// session is in no lesson. The connection itself leaves, because a join of its own may be under way.
    async fn kick_from_lesson(&self, session: SessionId) -> Result<Option<(NodeId, Kick)>, StoreError>;
    /// What this node is still to do, also where its lease was taken.
    async fn kicks(&self, node: NodeId) -> Result<Vec<Kick>, StoreError>;
    /// These kicks are carried out: heartbeats no longer name them.
    async fn ack_kicks(&self, node: NodeId, done: &[Kick]) -> Result<(), StoreError>;
}
