//! agent.entered and agent.left, as seed 000 shows them, and agent.updated (PROTOCOL 9), with the headers of PROTOCOL
//! 3.
//!
//! Invariant: a change of a session has one body, one set of headers and one message id, even if it is published
//! several times.
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

/// The changes that presence publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// agent.entered.
    Entered,
    /// agent.updated. It is boxed, because most events are of another kind.
    Updated(Box<Update>),
    /// agent.left, with its reason if this version knows that reason.
    Left(Option<LeftReason>),
}

/// The changed fields of an agent.updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The agent's state. `None` if it has no state any more.
    pub state: Option<JsonObject>,
    /// The version of state, role and info together.
    pub state_n: StateVersion,
    /// The role, if a takeover has changed role or info. Then the event carries both.
    pub role: Option<Role>,
}

impl Change {
    /// Returns `id.operation`, which is also `payload.label`.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::Entered => "entered",
            Self::Updated(_) => "updated",
            Self::Left(_) => "left",
        }
    }

    /// Returns the reason of a left.
    #[must_use]
    pub const fn reason(&self) -> Option<LeftReason> {
        match self {
            Self::Entered | Self::Updated(_) => None,
            Self::Left(reason) => *reason,
        }
    }

    /// Reads an entered or left from the texts of [`Change::operation`] and [`Change::reason`]. A left with an unknown
    /// reason, which a newer version wrote, is read without its reason. If it were refused, the agent would stay in
    /// every client's list.
    ///
    /// # Errors
    /// Returns an [`IdError`] for any other operation.
    pub fn parse(operation: &str, reason: Option<&str>) -> Result<Self, IdError> {
        match operation {
            "entered" => Ok(Self::Entered),
            "left" => Ok(Self::Left(reason.and_then(|reason| reason.parse().ok()))),
            _ => Err(IdError("operation")),
        }
    }
}

/// What an event is about: the `id` of the seed's events, and the Entity-Event headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EntityEvent<'a> {
    /// The type of the entity: `agent`, or a type of another service.
    pub entity_type: &'a str,
    /// What happened to the entity.
    pub operation: &'a str,
    /// The entity's number. For agents it is the session id.
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

/// An event that says that an agent entered, changed or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentEvent<'a> {
    /// What happened to the agent.
    pub change: &'a Change,
    /// The session, which is the event's `sequence_id`.
    pub session: SessionId,
    /// The agent.
    pub agent: &'a AgentId,
    /// The `info` of the agent's token, if it has one. It is sent with an entered, and with an updated that has the
    /// role.
    pub info: Option<&'a JsonObject>,
}

impl<'a> AgentEvent<'a> {
    fn entity(&self) -> EntityEvent<'a> {
        EntityEvent { entity_type: AGENT, operation: self.change.operation(), sequence_id: self.session.0 }
    }

    /// Returns the seed's JSON. The fields of PROTOCOL 9 are left out if they have no value.
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

    /// Returns the value of [`header::NATS_MSG_ID`]: `agent.entered:{installation}:{session_id}:{nonce}`. Two databases
    /// behind one stream give out the same session ids, and their installation ids differ. A database that was put back
    /// to an earlier time gives out its session ids again, and then the nonce differs.
    #[must_use]
    pub fn message_id(&self, installation: Uuid, nonce: Nonce) -> String {
        format!("agent.{}:{installation}:{}:{nonce}", self.change.operation(), self.session)
    }

    /// Returns the other headers of the event.
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
