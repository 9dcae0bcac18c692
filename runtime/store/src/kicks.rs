//! Ends sessions for operators, on any node.
//!
//! Invariant: the end is written at once, even if the session's node is stopped: history and agent.left have the reason
//! `kicked`, and no connection can join with the session or take it over any more. Its node closes the connection
//! afterwards, when its heartbeat tells it. The user's field in Redis stays until then, because a join of the
//! connection may be under way.
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
    /// The session's id.
    pub session: SessionId,
    /// The agent.
    pub agent: AgentId,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The node of the session's connection.
    pub node: NodeId,
    /// The session's connection.
    pub sid: Sid,
}

/// What a node must do to one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kick {
    /// The connection.
    pub sid: Sid,
    /// The lesson that the connection must leave, if it is still in it. `None` means that its session has ended, and
    /// the connection must be closed.
    pub lesson: Option<LessonId>,
}

/// Ends of sessions by operators.
#[async_trait]
pub trait Kicks: Send + Sync {
    /// Ends up to `max` of these sessions, on any node. `lease` is the caller's.
    async fn kick(&self, lease: Lease, target: &KickTarget, max: usize) -> Result<Vec<KickedSession>, StoreError>;
    /// Notes that a session's connection must leave its lesson. Returns its node and the note. `None` if the session is
    /// in no lesson. The node makes the connection leave, because a join of the connection may be under way.
    async fn kick_from_lesson(&self, session: SessionId) -> Result<Option<(NodeId, Kick)>, StoreError>;
    /// Returns the kicks that this node has not carried out yet, even if its lease was taken.
    async fn kicks(&self, node: NodeId) -> Result<Vec<Kick>, StoreError>;
    /// Records that these kicks are carried out, so heartbeats no longer name them.
    async fn ack_kicks(&self, node: NodeId, done: &[Kick]) -> Result<(), StoreError>;
}
