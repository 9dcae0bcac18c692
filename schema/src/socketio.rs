//! The fields that clients of Socket.IO send with CONNECT, and the names of the events that they get (PROTOCOL 11).
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{
    id::{AgentLabel, ClassroomId, LessonId, Offset},
    request::{PayloadError, Token},
    trace_parent::{self, TraceParent},
    wire,
};

/// The event that has connect_success's payload.
pub const CONNECT_SUCCESS: &str = "connect_success";
/// The event that has a session error's payload.
pub const SESSION_ERROR: &str = "session_error";
/// The event that has the error of a request without a callback.
pub const REQUEST_ERROR: &str = "request_error";

/// Names that pushes may not have, because the gateway's own events have them. The protocol's crate knows the names
/// that client libraries reserve.
pub const RESERVED: [&str; 3] = [CONNECT_SUCCESS, SESSION_ERROR, REQUEST_ERROR];

/// The `auth` object of CONNECT, or the fields of it in the handshake's query. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Auth {
    /// The token.
    token: Option<Token>,
    /// The token under another name.
    access_token: Option<Token>,
    /// The classroom to enter. Without it, the client enters the classroom of the lesson that it joins.
    pub classroom_id: Option<ClassroomId>,
    /// The client's label.
    pub agent_label: Option<AgentLabel>,
    /// The lesson for a join that names none.
    pub lesson_id: Option<LessonId>,
    /// Asks for the roster in connect_success.
    pub roster: Option<bool>,
    /// The trace of the connection.
    #[serde(default, deserialize_with = "trace_parent::lenient")]
    pub traceparent: Option<TraceParent>,
    /// If false, the client does not want to go on after a break, and gets no offsets. The value may also be a text,
    /// because a query only has texts.
    #[serde(default, deserialize_with = "lenient")]
    pub recovery: Option<Switch>,
    /// The text that the client was given to go on with after a break. Its library sends it together with `offset`. An
    /// app may use these two names for itself, so any value but a text counts as none.
    #[serde(default, deserialize_with = "lenient")]
    pub pid: Option<String>,
    /// The offset of the last event that the client has: `{epoch}-{N}`.
    #[serde(default, deserialize_with = "lenient")]
    pub offset: Option<String>,
}

/// `true` or `false`, or one of them as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "SwitchForm")]
pub struct Switch(pub bool);

#[derive(Deserialize)]
#[serde(untagged)]
enum SwitchForm {
    Bool(bool),
    Text(String),
}

impl From<SwitchForm> for Switch {
    fn from(form: SwitchForm) -> Self {
        Self(match form {
            SwitchForm::Bool(on) => on,
            SwitchForm::Text(text) => text != "false",
        })
    }
}

/// Reads a field. A value of another type counts as none.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let raw = Option::<&'de RawValue>::deserialize(deserializer)?;
    Ok(raw.and_then(|raw| serde_json::from_str(raw.get()).ok()))
}

/// Returns the text after the arguments of an event, for clients that may go on after a break. Their library sends it
/// back as `offset`.
#[must_use]
pub fn position(epoch: &str, offset: Offset) -> String {
    format!(",{}", wire::text(&format!("{epoch}-{offset}")))
}

/// Returns the offset in such a text, or `None` if it belongs to another stream.
#[must_use]
pub fn offset_in(text: &str, epoch: &str) -> Option<Offset> {
    let (of, offset) = text.rsplit_once('-')?;
    offset.parse().ok().filter(|_| of == epoch).map(Offset)
}

impl Auth {
    /// Reads the object; an empty text is read as an empty object.
    ///
    /// # Errors
    /// Returns a [`PayloadError`] if the object has not the required form.
    pub fn parse(json: &str) -> Result<Self, PayloadError> {
        if json.is_empty() { Ok(Self::default()) } else { Ok(serde_json::from_str(json)?) }
    }

    /// Returns the token, under either of its names.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref().or(self.access_token.as_ref())
    }
}
