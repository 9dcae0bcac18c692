//! Who is where: read-only queries of live sessions.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, NodeId, ResumeId, Role, RosterAgent, SessionId, Sid, UserId};

use crate::StoreError;

/// A live session in a lesson, as it is to be in the keys in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LessonMembership {
    /// The session.
    pub session: SessionId,
    /// Its connection.
    pub sid: Sid,
    /// The user.
    pub user: UserId,
    /// The role, which decides the keys.
    pub role: Role,
    /// The lesson.
    pub lesson: LessonId,
    /// How many seats the lesson has.
    pub seats: u32,
}

/// The session of a client that goes on after a break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumableSession {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The lesson that it was in.
    pub lesson: Option<LessonId>,
}

/// Which agents are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RosterQuery {
    /// The classroom.
    pub classroom: ClassroomId,
    /// Only those in this lesson.
    pub lesson: Option<LessonId>,
    /// Only those with session ids above this one.
    pub after: SessionId,
}

/// Queries of live sessions.
#[async_trait]
pub trait Queries: Send + Sync {
    /// Live sessions of this node that are in a lesson, ids above `after`, ascending, at most `max`.
    async fn lesson_memberships(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LessonMembership>, StoreError>;
    /// The classroom of a lesson; none where there is no such lesson.
    async fn lesson_classroom(&self, lesson: &LessonId) -> Result<Option<ClassroomId>, StoreError>;
    /// The answer of each query, in one statement that begins after the call: at most `max` agents, their session ids
    /// ascending. It is read from where sessions are written, so it has what was committed before.
    async fn agents(&self, queries: &[RosterQuery], max: usize) -> Result<Vec<Vec<RosterAgent>>, StoreError>;
    /// The agent's session under this id, if it is its latest in its classroom, and is live, or ended within this time. Only
    /// the user's 64 latest ends are looked at.
    async fn resumable(
        &self,
        agent: &AgentId,
        id: ResumeId,
        within: Duration,
    ) -> Result<Option<ResumableSession>, StoreError>;
    /// How many agents each classroom has, zeros included, in the order asked for.
    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError>;
}
