//! Requests from clients (PROTOCOL 2): the envelope and the payloads, read in place.
//!
//! Invariant: parsing never builds a tree. The envelope is borrowed from the message, a payload's texts are copied
//! once, and nested values that no field needs are skipped without recursion. Time is linear, and beyond a fixed 64 KiB
//! each received byte costs at most 2 bytes of memory, at any depth of nesting. Errors and `Debug` show no payload,
//! because it contains tokens.
//!
//! These cases are left open by the protocol, and decided here:
//!
//! | input | outcome |
//! | --- | --- |
//! | `null` in an optional field | as if the field were absent |
//! | unknown fields, at any depth and however often | ignored |
//! | a known field twice | error |
//! | a lone surrogate (`"\ud800"`) | error in a text that is read or a field's name; accepted where it is skipped |
//! | an array where an object belongs | error |
//! | a `ref` that is a text of more than 64 bytes, `1.0`, `1e3` or outside of i64 | error, whose ack has `null` |
use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

use crate::{
    id::{self, AgentLabel, ClassroomId, IdError, LessonId, Offset, SessionId},
    object::{JsonObject, read_object},
    trace_parent::{self, TraceParent},
};

/// The `ref` of a request, which its ack repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ref {
    /// The request has no `ref`, so a success is not acknowledged.
    #[default]
    Missing,
    /// An integer, which the ack repeats.
    Number(i64),
    /// A text, which the ack repeats.
    Text(RefText),
}

/// The longest text of a `ref`, in bytes of UTF-8.
const MAX_REF: usize = 64;

/// What a client is told about a `ref` that is neither an integer of 64 bits nor a short text.
const REF_RULE: &str = "ref: an integer of 64 bits, or a text of at most 64 bytes";

/// A short text that needs no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RefText {
    length: u8,
    bytes: [u8; MAX_REF],
}

impl RefText {
    /// Copies a text. Returns `None` if it is too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; MAX_REF];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { length: u8::try_from(text.len()).ok()?, bytes })
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length.into()]).expect("it was a text")
    }
}

impl fmt::Debug for RefText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Ref {
    /// Reads a `ref`. `None` if it is neither an integer of 64 bits nor a short text.
    fn read(raw: &str) -> Option<Self> {
        if let Ok(number) = raw.parse() {
            return Some(Self::Number(number));
        }
        // A text of this length is too long even if each character is an escape, so it is not copied.
        if raw.len() > 6 * MAX_REF + 2 {
            return None;
        }
        let Text(text) = serde_json::from_str(raw).ok()?;
        RefText::new(&text).map(Self::Text)
    }
}

impl Serialize for Ref {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text.as_str()),
            Self::Missing => serializer.serialize_unit(),
        }
    }
}

/// Why a message is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The message is not a JSON object in UTF-8, or has a field of the envelope twice.
    #[error("the message is not a JSON object")]
    Syntax,
    /// The message's `ref` cannot be repeated, because it is neither an integer of 64 bits nor a short text.
    #[error("the message has a faulty ref")]
    Reference,
    /// The message has no `type`, or a `type` that is not a text.
    #[error("the message has no type")]
    NoEvent(Ref),
}

impl RequestError {
    /// Returns the `ref` of the ack.
    #[must_use]
    pub fn reference(self) -> Ref {
        match self {
            Self::Syntax | Self::Reference => Ref::Missing,
            Self::NoEvent(reference) => reference,
        }
    }
}

/// A payload is not an object, or a field of it is missing or wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("the payload is not what the event takes")]
pub struct PayloadError {
    /// The field and its rule, if they are known. The text repeats nothing of the payload.
    pub detail: Option<String>,
}

impl From<RequestError> for PayloadError {
    fn from(error: RequestError) -> Self {
        Self { detail: (error == RequestError::Reference).then(|| REF_RULE.to_owned()) }
    }
}

impl From<serde_json::Error> for PayloadError {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
        let missing = missing.map(|(field, _)| format!("{field}: is required"));
        let rule =
            || id::RULES.iter().find(|(kind, _)| names(&text, kind)).map(|(kind, rule)| format!("{kind}: {rule}"));
        Self { detail: missing.or_else(rule) }
    }
}

/// Returns whether an error is about an id of this kind: its text is invalid, or a value of another type is in its
/// place. The error may repeat a text of the payload. At worst the client is then told the rule of another kind.
fn names(error: &str, kind: &str) -> bool {
    let of = |start: &str| error.contains(&format!("{start} {kind} at line"));
    of("not a valid") || of("expected")
}

/// A message of a client: `{"type": "<event>", "ref": <integer or text>, "payload": <object>}`.
#[derive(Clone)]
pub struct Request<'a> {
    /// The event's name, from `type`.
    pub event: Cow<'a, str>,
    /// The request's `ref`.
    pub reference: Ref,
    /// The payload, which is not parsed yet (see [`Request::payload`]).
    pub payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    event: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// A text that is borrowed if it has no escapes. Serde always copies a bare `Cow`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Request<'a> {
    /// Reads the envelope.
    ///
    /// # Errors
    /// Returns a [`RequestError`] if the envelope is invalid. In `payload`, only broken JSON is an error here.
    pub fn parse(message: &'a [u8]) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(message).map_err(|_| RequestError::Syntax)?;
        let Envelope { event, reference, payload } = read_object(text).map_err(|_| RequestError::Syntax)?;
        let reference = match reference {
            Some(raw) => Ref::read(raw.get()).ok_or(RequestError::Reference)?,
            None => Ref::Missing,
        };
        let event = event.and_then(|raw| serde_json::from_str::<Text<'a>>(raw.get()).ok());
        let Text(event) = event.ok_or(RequestError::NoEvent(reference))?;
        Ok(Self { event, reference, payload })
    }

    /// Parses the payload of an event; a missing payload is read as an empty one.
    ///
    /// # Errors
    /// Returns a [`PayloadError`] if the payload has not the required form.
    pub fn payload<T: Deserialize<'a>>(&self) -> Result<T, PayloadError> {
        read_object(self.payload.map_or("{}", RawValue::get)).map_err(Into::into)
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("event", &self.event)
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

/// Reads an optional field, which must hold an object.
fn optional_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw = Option::<&'de RawValue>::deserialize(deserializer)?;
    raw.map(|raw| read_object(raw.get())).transpose().map_err(|_| D::Error::custom("not the object asked for"))
}

/// A JWT that is not checked yet. `Debug` does not show it. It is owned, because it outlives its message.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(Box<str>);

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Token {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// `connect_request`, the first message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConnectRequest {
    /// The token. `None` for a guest.
    pub token: Option<Token>,
    /// The classroom. A guest names it, too.
    pub classroom_id: ClassroomId,
    /// The label of the client. A guest has one, too.
    pub agent_label: AgentLabel,
    /// Asks for offsets, and, if it names an offset, for the missed events.
    #[serde(default, deserialize_with = "optional_object")]
    pub resume: Option<Resume>,
    /// Asks for the roster in connect_success.
    pub roster: Option<bool>,
    /// Asks for pings that a page sees.
    pub heartbeat: Option<bool>,
    /// The trace of the connection.
    #[serde(default, deserialize_with = "trace_parent::lenient")]
    pub traceparent: Option<TraceParent>,
}

/// What a client knows of the stream (PROTOCOL 3). `{}` asks for offsets but not for missed events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Resume {
    /// The epoch of the offset's stream.
    pub epoch: Option<String>,
    /// The offset of the last event that the client has.
    pub offset: Option<Offset>,
    /// The lesson to join before the replay.
    pub lesson_id: Option<LessonId>,
}

impl Resume {
    /// Returns the epoch and the offset after which to replay. `None` unless both are given.
    #[must_use]
    pub fn position(&self) -> Option<(&str, Offset)> {
        Some((self.epoch.as_deref()?, self.offset?))
    }
}

/// The payload of `join_lesson`. The seed's data is `None`, so everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct JoinLesson {
    /// The lesson. Without it, the lesson of the upgrade's URL or of the token is joined.
    pub lesson_id: Option<LessonId>,
    /// The user's token. Without it, the token of connect_request is used.
    pub access_token: Option<Token>,
}

/// The payload of `refresh`: a fresh token for the session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refresh {
    /// The fresh token.
    pub token: Token,
}

/// The payload of `roster`: which agents are in the classroom, or in one of its lessons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Roster {
    /// Only sessions with higher ids than this.
    pub after: Option<SessionId>,
    /// The maximum number of agents of a page.
    pub limit: Option<u32>,
    /// Only agents in this lesson.
    pub lesson_id: Option<LessonId>,
}

/// The payload of `set_state`: the agent's new state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SetState {
    /// The state; `null` removes it.
    #[serde(deserialize_with = "nullable_state")]
    pub state: Option<JsonObject>,
}

/// Reads a field that may be `null` but must be present. An error names the field.
fn nullable_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JsonObject>, D::Error> {
    Option::deserialize(deserializer).map_err(|_| D::Error::custom(IdError("state")))
}
