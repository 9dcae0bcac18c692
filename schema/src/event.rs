//! agent.entered and agent.left, as seed 000 shows them, and agent.updated (PROTOCOL 9), with the headers of PROTOCOL 3.
//!
//! Invariant: one session's change has one body, one set of headers and one message id, however often it is published.
use serde::Serialize;
use uuid::Uuid;

use crate::{
    entity::AGENT,
    header,
    id::{AgentId, IdError, Nonce, SessionId, StateVersion},
    object::JsonObject,
    reason::LeftReason,
    role::Role,
    wire,
};

/// What presence publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// agent.entered.
    Entered,
    /// agent.updated. Boxed, because most events are none.
    Updated(Box<Update>),
    /// agent.left, with the reason where this version knows it.
    Left(Option<LeftReason>),
}

/// What agent.updated says of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The agent's state; none where it has none any more.
    pub state: Option<JsonObject>,
    /// The version of state, role and info.
    pub state_n: StateVersion,
    /// The role, where a takeover has changed role or info: then the event carries both.
    pub role: Option<Role>,
}

impl Change {
    /// `id.operation` and `payload.label`.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::Entered => "entered",
            Self::Updated(_) => "updated",
            Self::Left(_) => "left",
        }
    }

    /// The reason of a left.
    #[must_use]
    pub const fn reason(&self) -> Option<LeftReason> {
        match self {
            Self::Entered | Self::Updated(_) => None,
            Self::Left(reason) => *reason,
        }
    }

    /// Reads what [`Change::operation`] and [`Change::reason`] gave of an entered or left. A reason that a newer version
    /// wrote is left out: without its left, an agent would stay in everybody's list.
    ///
    /// # Errors
    /// [`IdError`] for any other operation.
    pub fn parse(operation: &str, reason: Option<&str>) -> Result<Self, IdError> {
        match operation {
            "entered" => Ok(Self::Entered),
            "left" => Ok(Self::Left(reason.and_then(|reason| reason.parse().ok()))),
            _ => Err(IdError("operation")),
        }
    }
}

/// What an event is about: `id` in the seed's events, and the Entity-Event headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EntityEvent<'a> {
    /// `agent`, or the type of another service's entity.
    pub entity_type: &'a str,
    /// What happened to it.
    pub operation: &'a str,
    /// For agents, the session id.
    pub sequence_id: i64,
}

#[derive(Serialize)]
struct Body<'a> {
    id: EntityEvent<'a>,
    payload: Payload<'a>,
}

#[derive(Serialize)]
struct Payload<'a> {
    version: &'static str,
    entity_type: &'static str,
    label: &'static str,
    agent_id: &'a AgentId,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Option<&'a JsonObject>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_n: Option<StateVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Option<&'a JsonObject>>,
}

/// An agent entered, changed or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentEvent<'a> {
    /// What happened.
    pub change: &'a Change,
    /// `sequence_id`.
    pub session: SessionId,
    /// The agent.
    pub agent: &'a AgentId,
    /// Its token's `info`, if there is one: of an entered, and of an updated that tells its role.
    pub info: Option<&'a JsonObject>,
}

impl<'a> AgentEvent<'a> {
    fn entity(&self) -> EntityEvent<'a> {
        EntityEvent { entity_type: AGENT, operation: self.change.operation(), sequence_id: self.session.0 }
    }

    /// The seed's JSON, with the fields of PROTOCOL 9 only where there is something to tell.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let update = if let Change::Updated(update) = self.change { Some(update) } else { None };
        let role = update.and_then(|update| update.role);
        let payload = Payload {
            version: "v1",
            entity_type: AGENT,
            label: self.change.operation(),
            agent_id: self.agent,
            state: update.map(|update| update.state.as_ref()),
            state_n: update.map(|update| update.state_n),
            role,
            info: match self.change {
                Change::Entered => self.info.map(Some),
                Change::Updated(_) => role.map(|_| self.info),
                Change::Left(_) => None,
            },
        };
        wire::json(&Body { id: self.entity(), payload })
    }

    /// [`header::NATS_MSG_ID`]: `agent.entered:{installation}:{session_id}:{nonce}`. Two databases behind one stream
    /// number their sessions alike, the installation tells them apart; so does one that was put back to an earlier
    /// time, and there the nonce does.
    #[must_use]
    pub fn message_id(&self, installation: Uuid, nonce: Nonce) -> String {
        format!("agent.{}:{installation}:{}:{nonce}", self.change.operation(), self.session)
    }

    /// The other headers.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let EntityEvent { entity_type, operation, sequence_id } = self.entity();
        let mut headers = vec![
            (header::IS_INTERNAL, "false".to_owned()),
            (header::SENDER_AGENT_ID, self.agent.to_string()),
            (header::ENTITY_EVENT_TYPE, entity_type.to_owned()),
            (header::ENTITY_EVENT_OPERATION, operation.to_owned()),
            (header::ENTITY_EVENT_SEQUENCE_ID, sequence_id.to_string()),
        ];
        headers.extend(self.change.reason().map(|reason| (header::LEFT_REASON, reason.to_string())));
        headers
    }
}
