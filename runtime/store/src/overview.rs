//! What operators see: who is live, where, and on which nodes. Reads only.
use std::{ops::RangeInclusive, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Epoch, JsonObject, LessonId, NodeId, Role, Seat, SessionId, UserId};
use serde::Serialize;

use crate::StoreError;

/// A classroom that somebody is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LiveClassroom {
    /// Its id.
    pub classroom_id: ClassroomId,
    /// How many agents are in it.
    pub agents: u64,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveSession {
    /// Its id.
    pub session_id: SessionId,
    /// The agent.
    pub agent_id: AgentId,
    /// The classroom.
    pub classroom_id: ClassroomId,
    /// The token's role.
    pub role: Role,
    /// The lesson that it is in.
    pub lesson_id: Option<LessonId>,
    /// The user's seat there.
    pub seat: Option<Seat>,
    /// The node of its connection.
    pub node_id: NodeId,
    /// When it began, as in RFC 3339, UTC.
    pub started_at: String,
    /// When it joined its lesson.
    pub joined_at: Option<String>,
    /// The token's claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<JsonObject>,
    /// What the agent has set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JsonObject>,
}

/// A session that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastSession {
    /// Its id.
    pub session_id: SessionId,
    /// The agent.
    pub agent_id: AgentId,
    /// The classroom.
    pub classroom_id: ClassroomId,
    /// The lesson that it was in when it ended.
    pub lesson_id: Option<LessonId>,
    /// When it began, as in RFC 3339, UTC.
    pub entered_at: String,
    /// When it ended.
    pub left_at: String,
    /// Why, as it is stored: a newer version may know other reasons.
    pub reason: String,
    /// Why it was kicked: the session error that its client was told (`kicked`: by an operator), or `violation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Whose sessions are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A user's, under all labels.
    User(UserId),
    /// The sessions of this agent.
    Agent(AgentId),
}

impl Whose {
    /// The user, by whom sessions are found.
    #[must_use]
    pub fn user(&self) -> UserId {
        match self {
            Self::User(user) => user.clone(),
            Self::Agent(agent) => agent.user(),
        }
    }

    /// The agent, if it is one's.
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
    /// Its id.
    pub node_id: NodeId,
    /// A name for people.
    pub label: String,
    /// How often its lease changed hands.
    pub epoch: Epoch,
    /// When its lease ends, as in RFC 3339, UTC.
    pub lease_until: String,
    /// Whether its lease holds.
    pub alive: bool,
    /// How many live sessions are its.
    pub sessions: u64,
}

/// What a node said of itself when it last renewed its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its id.
    pub node_id: NodeId,
    /// A name for people.
    pub label: String,
    /// Whether its lease holds.
    pub alive: bool,
    /// How long its lease still holds; zero where it has ended.
    pub lease_left: Duration,
    /// The JSON, and how old it is; none where it has said nothing yet.
    pub statistics: Option<(String, Duration)>,
}

/// Queries for operators.
#[async_trait]
pub trait Overview: Send + Sync {
    /// Classrooms of these ids that somebody is in, ascending, at most `max`. Costs what their agents cost, however many
    /// others there are.
    async fn live_classrooms(
        &self,
        ids: RangeInclusive<ClassroomId>,
        max: usize,
    ) -> Result<Vec<LiveClassroom>, StoreError>;
    /// Somebody's live sessions, ids above `after`, ascending, at most `max`.
    async fn sessions_of(&self, whose: &Whose, after: SessionId, max: usize) -> Result<Vec<LiveSession>, StoreError>;
    /// A classroom's live sessions, ids above `after`, ascending, at most `max`.
    async fn sessions_in(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LiveSession>, StoreError>;
    /// Somebody's sessions that have ended, ids below `before`, descending, at most `max`.
    async fn past_sessions_of(
        &self,
        whose: &Whose,
        before: SessionId,
        max: usize,
    ) -> Result<Vec<PastSession>, StoreError>;
    /// What all nodes last said of themselves, by id. Costs a row a node, however many sessions they have.
    async fn reports(&self) -> Result<Vec<NodeReport>, StoreError>;
    /// All nodes, by id.
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError>;
}
