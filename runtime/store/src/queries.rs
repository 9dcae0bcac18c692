//! Read-only queries of live sessions.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, NodeId, ResumeId, Role, RosterAgent, SessionId, Sid, UserId};

use crate::StoreError;

/// A live session in a lesson, with what the keys in Redis need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LessonMembership {
    /// The session.
    pub session: SessionId,
    /// The session's connection.
    pub sid: Sid,
    /// The user.
    pub user: UserId,
    /// The role, which determines the keys.
    pub role: Role,
    /// The lesson.
    pub lesson: LessonId,
    /// How many seats the lesson has.
    pub seats: u32,
    /// Whether the user's field in the lesson names this connection: of the user's connections there with such a role,
    /// it joined last.
    pub holds_field: bool,
}

/// The session with which a client goes on after a break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumableSession {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The lesson of the session.
    pub lesson: Option<LessonId>,
}

/// A query for agents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RosterQuery {
    /// The classroom.
    pub classroom: ClassroomId,
    /// If set, only the agents in this lesson.
    pub lesson: Option<LessonId>,
    /// Only agents with session ids above this one.
    pub after: SessionId,
}

/// Queries of live sessions.
#[async_trait]
pub trait Queries: Send + Sync {
    /// Returns the live sessions of this node that are in a lesson, with ids above `after`, ascending, at most `max`.
    async fn lesson_memberships(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LessonMembership>, StoreError>;
    /// Returns the classroom of a lesson, or `None` if there is no such lesson.
    async fn lesson_classroom(&self, lesson: &LessonId) -> Result<Option<ClassroomId>, StoreError>;
    /// Returns the answer of each query, in one statement that begins after the call: at most `max` agents, with
    /// ascending session ids. The server that takes writes is read, so everything that was committed before is
    /// included.
    async fn agents(&self, queries: &[RosterQuery], max: usize) -> Result<Vec<Vec<RosterAgent>>, StoreError>;
    /// Returns the agent's session with this resume id, if it is its latest in its classroom, and is live or has ended
    /// within this time. Only the user's 64 latest ends are checked.
    async fn resumable(
        &self,
        agent: &AgentId,
        id: ResumeId,
        within: Duration,
    ) -> Result<Option<ResumableSession>, StoreError>;
    /// Returns the number of agents in each classroom, including zeros, in the given order.
    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError>;
}
