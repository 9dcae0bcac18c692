//! Requests from clients (PROTOCOL 2): the envelope and the payloads, read in place.
//!
//! Invariant: parsing never builds a tree. The envelope is borrowed from the message, a payload's texts are copied
//! once, nested values that no field needs are skipped without recursion, and time is linear: above a fixed 64 KiB at
//! most 2 bytes of memory for each byte received, at any depth of nesting. Errors and `Debug` show no payload: there
//! are tokens in it.
//!
//! What the protocol leaves open is decided here:
//!
//! | input | outcome |
//! | --- | --- |
//! | `null` in an optional field | as if the field were absent; but a `ref` of `null` is a faulty one |
//! | unknown fields, at any depth and however often | ignored |
//! | a known field twice | error |
//! | a lone surrogate (`"\ud800"`) | error in a text that is read or a field's name; accepted where it is skipped |
//! | an array where an object belongs | error |
//! | a `ref` that is a text of more than 64 bytes, `1.0`, `1e3` or outside of i64 | faulty: the request is handled, its ack has `null` |
use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

use crate::{
    id::{self, AgentLabel, ClassroomId, IdError, LessonId, Offset, SessionId},
    object::JsonObject,
    trace_parent::{self, TraceParent},
};

/// The `ref` of a request, which its ack repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ref {
    /// There is none: a success is not acknowledged.
    #[default]
    Missing,
    /// There is one, but it is neither an integer of 64 bits nor a short text: comes back as `null`.
    Faulty,
    /// An integer, which the ack repeats.
    Number(i64),
    /// A text, which the ack repeats.
    Text(RefText),
}

/// The longest text of a `ref`, in bytes of UTF-8.
const MAX_REF: usize = 64;

/// A short text without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RefText {
    length: u8,
    bytes: [u8; MAX_REF],
}

impl RefText {
    /// None where the text is too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; MAX_REF];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { length: u8::try_from(text.len()).ok()?, bytes })
    }

    /// The text.
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

impl<'de> Deserialize<'de> for Ref {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        if let Ok(number) = raw.get().parse() {
            return Ok(Self::Number(number));
        }
        // Too long even if each character is an escape, so it is not copied.
        let text =
            (raw.get().len() <= 6 * MAX_REF + 2).then(|| serde_json::from_str::<Text<'_>>(raw.get()).ok()).flatten();
        Ok(text.and_then(|Text(text)| RefText::new(&text)).map_or(Self::Faulty, Self::Text))
    }
}

impl Serialize for Ref {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text.as_str()),
            Self::Missing | Self::Faulty => serializer.serialize_unit(),
        }
    }
}

/// Why a message is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a JSON object in UTF-8, or one with a field of the envelope twice.
    #[error("the message is not a JSON object")]
    Syntax,
    /// No `type`, or one that is not a text.
    #[error("the message has no type")]
    NoEvent(Ref),
}

impl RequestError {
    /// The `ref` of the ack.
    #[must_use]
    pub fn reference(self) -> Ref {
        match self {
            // A message that cannot be read may have had one.
            Self::Syntax => Ref::Faulty,
            Self::NoEvent(reference) => reference,
        }
    }
}

/// A payload is not an object, or a field of it is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is not what the event takes")]
pub struct PayloadError {
    /// The field and its rule, where they are known. It repeats nothing of the payload.
    pub detail: Option<String>,
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

/// Whether an error speaks of an id of this kind: of its text, or of what stands there instead of one. A text of the
/// payload in it can only make the detail another rule.
fn names(error: &str, kind: &str) -> bool {
    let of = |start: &str| error.contains(&format!("{start} {kind} at line"));
    of("not a valid") || of("expected")
}

/// A message of a client: `{"type": "<event>", "ref": <integer>, "payload": <object>}`.
#[derive(Clone)]
pub struct Request<'a> {
    /// `type`.
    pub event: Cow<'a, str>,
    /// `ref`.
    pub reference: Ref,
    /// Not parsed yet; see [`Request::payload`].
    pub payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    event: Option<&'a RawValue>,
    #[serde(default, rename = "ref")]
    reference: Ref,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// A text, borrowed where it has no escapes: a bare `Cow` would always be copied.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Request<'a> {
    /// Reads the envelope.
    ///
    /// # Errors
    /// See [`RequestError`]; nothing in `payload` is one, but broken JSON.
    pub fn parse(message: &'a [u8]) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(message).map_err(|_| RequestError::Syntax)?;
        let Envelope { event, reference, payload } = object(text).map_err(|_| RequestError::Syntax)?;
        let event = event.and_then(|raw| serde_json::from_str::<Text<'a>>(raw.get()).ok());
        let Text(event) = event.ok_or(RequestError::NoEvent(reference))?;
        Ok(Self { event, reference, payload })
    }

    /// Parses the payload of an event; a missing payload is read as an empty one.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn payload<T: Deserialize<'a>>(&self) -> Result<T, PayloadError> {
        object(self.payload.map_or("{}", RawValue::get)).map_err(Into::into)
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

/// Reads one JSON object: serde alone would take an array of the fields' values for it.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r']);
    if text.starts_with('{') { serde_json::from_str(text) } else { Err(serde_json::Error::custom("not an object")) }
}

/// An optional field that holds an object.
fn optional_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw = Option::<&'de RawValue>::deserialize(deserializer)?;
    raw.map(|raw| object(raw.get())).transpose().map_err(|_| D::Error::custom("not the object asked for"))
}

/// A JWT that is not checked yet. `Debug` does not show it. Owned, because it outlives its message.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(Box<str>);

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Token {
    /// The text.
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
    /// None for a guest.
    pub token: Option<Token>,
    /// The classroom; a guest names it too.
    pub classroom_id: ClassroomId,
    /// The label of the client; a guest has one too.
    pub agent_label: AgentLabel,
    /// Asks for offsets, and for the missed events where it names an offset.
    #[serde(default, deserialize_with = "optional_object")]
    pub resume: Option<Resume>,
    /// Asks for the roster in the success.
    pub roster: Option<bool>,
    /// Asks for pings that a page sees.
    pub heartbeat: Option<bool>,
    /// The trace that the connection belongs to.
    #[serde(default, deserialize_with = "trace_parent::lenient")]
    pub traceparent: Option<TraceParent>,
}

/// What a client knows of the stream (PROTOCOL 3). `{}` asks for offsets but not for missed events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Resume {
    /// The epoch of the stream that the offset belongs to.
    pub epoch: Option<String>,
    /// The last event that it has.
    pub offset: Option<Offset>,
    /// The lesson to join before the replay.
    pub lesson_id: Option<LessonId>,
}

impl Resume {
    /// Epoch and offset to replay from; none unless both are given.
    #[must_use]
    pub fn position(&self) -> Option<(&str, Offset)> {
        Some((self.epoch.as_deref()?, self.offset?))
    }
}

/// `join_lesson`. The seed's data is `None`: everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct JoinLesson {
    /// The lesson; none: the upgrade URL's, else the token's.
    pub lesson_id: Option<LessonId>,
    /// The user's token; none: the token of connect_request is used.
    pub access_token: Option<Token>,
}

/// `refresh`: a fresh token for the session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refresh {
    /// The fresh token.
    pub token: Token,
}

/// `roster`: who is in the classroom, or in one of its lessons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Roster {
    /// Sessions above this one.
    pub after: Option<SessionId>,
    /// The most agents of the page.
    pub limit: Option<u32>,
    /// Only agents in this lesson.
    pub lesson_id: Option<LessonId>,
}

/// `set_state`: the agent's state from now on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SetState {
    /// `null`: none any more.
    #[serde(deserialize_with = "nullable_state")]
    pub state: Option<JsonObject>,
}

/// Unlike an optional field it must be there, and an error names it.
fn nullable_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JsonObject>, D::Error> {
    Option::deserialize(deserializer).map_err(|_| D::Error::custom(IdError("state")))
}
