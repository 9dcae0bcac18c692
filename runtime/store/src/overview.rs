//! What operators see: the live sessions, their classrooms and the nodes. These calls only read.
use std::{ops::RangeInclusive, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Epoch, JsonObject, LessonId, NodeId, Role, Seat, SessionId, UserId};
use serde::Serialize;

use crate::StoreError;

/// A classroom with agents in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LiveClassroom {
    /// The classroom's id.
    pub classroom_id: ClassroomId,
    /// The number of agents in the classroom.
    pub agents: u64,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveSession {
    /// The session's id.
    pub session_id: SessionId,
    /// The agent.
    pub agent_id: AgentId,
    /// The classroom.
    pub classroom_id: ClassroomId,
    /// The role in the token.
    pub role: Role,
    /// The lesson of the session.
    pub lesson_id: Option<LessonId>,
    /// The user's seat in the lesson.
    pub seat: Option<Seat>,
    /// The node of the session's connection.
    pub node_id: NodeId,
    /// When the session began, as in RFC 3339, in UTC.
    pub started_at: String,
    /// When the session joined its lesson.
    pub joined_at: Option<String>,
    /// The `info` in the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<JsonObject>,
    /// The state that the agent has set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JsonObject>,
    /// When a new connection of the agent last took the session over from another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_over_at: Option<String>,
}

/// A session that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastSession {
    /// The session's id.
    pub session_id: SessionId,
    /// The agent.
    pub agent_id: AgentId,
    /// The classroom.
    pub classroom_id: ClassroomId,
    /// The lesson of the session when it ended.
    pub lesson_id: Option<LessonId>,
    /// When the session began, as in RFC 3339, in UTC.
    pub entered_at: String,
    /// When the session ended.
    pub left_at: String,
    /// The reason as it is stored. A newer version may know other reasons.
    pub reason: String,
    /// Why the session was kicked: the session error that the client got (`kicked`: by an operator), or `violation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The same as in [`LiveSession`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_over_at: Option<String>,
}

/// The user or the agent whose sessions are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The sessions of this user, under all labels.
    User(UserId),
    /// The sessions of this agent.
    Agent(AgentId),
}

impl Whose {
    /// Returns the user, by which the sessions are found.
    #[must_use]
    pub fn user(&self) -> UserId {
        match self {
            Self::User(user) => user.clone(),
            Self::Agent(agent) => agent.user(),
        }
    }

    /// Returns the agent, if the sessions are an agent's.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentId> {
        match self {
            Self::User(_) => None,
            Self::Agent(agent) => Some(agent),
        }
    }
}

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// The node's id.
    pub node_id: NodeId,
    /// A name for people.
    pub label: String,
    /// How often the node's lease changed its owner.
    pub epoch: Epoch,
    /// When the node's lease ends, as in RFC 3339, in UTC.
    pub lease_until: String,
    /// Whether the node's lease is valid.
    pub alive: bool,
    /// How many live sessions the node has.
    pub sessions: u64,
}

/// The statistics that a node wrote when it last renewed its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The node's id.
    pub node_id: NodeId,
    /// A name for people.
    pub label: String,
    /// Whether the node's lease is valid.
    pub alive: bool,
    /// How long the node's lease is still valid; zero if it has ended.
    pub lease_left: Duration,
    /// The JSON, and its age. `None` if the node has written none yet.
    pub statistics: Option<(String, Duration)>,
}

/// Queries for operators.
#[async_trait]
pub trait Overview: Send + Sync {
    /// Returns the classrooms of these ids that have agents, ascending, at most `max`. The cost depends on their agents
    /// only.
    async fn live_classrooms(
        &self,
        ids: RangeInclusive<ClassroomId>,
        max: usize,
    ) -> Result<Vec<LiveClassroom>, StoreError>;
    /// Returns the live sessions of a user or an agent, with ids above `after`, ascending, at most `max`.
    async fn sessions_of(&self, whose: &Whose, after: SessionId, max: usize) -> Result<Vec<LiveSession>, StoreError>;
    /// Returns the live sessions of a classroom, with ids above `after`, ascending, at most `max`.
    async fn sessions_in(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LiveSession>, StoreError>;
    /// Returns the ended sessions of a user or an agent, with ids below `before`, descending, at most `max`.
    async fn past_sessions_of(
        &self,
        whose: &Whose,
        before: SessionId,
        max: usize,
    ) -> Result<Vec<PastSession>, StoreError>;
    /// Returns the latest statistics of all nodes, by id. The cost is one row for each node, however many sessions they
    /// have.
    async fn reports(&self) -> Result<Vec<NodeReport>, StoreError>;
    /// Returns all nodes, by id.
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError>;
}
