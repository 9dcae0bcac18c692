//! What Socket.IO's clients send with CONNECT, and the names of the events that they are sent (PROTOCOL 11).
use serde::Deserialize;

use crate::{
    id::{AgentLabel, ClassroomId, LessonId},
    request::{PayloadError, Token},
    trace_parent::{self, TraceParent},
};

/// The event with connect_success's payload.
pub const CONNECT_SUCCESS: &str = "connect_success";
/// The event with a session error's payload.
pub const SESSION_ERROR: &str = "session_error";
/// The event with the error of a request without a callback.
pub const REQUEST_ERROR: &str = "request_error";

/// Names that pushes may not have: those of the gateway's own events. Those that mean something to clients themselves are
/// known to their protocol.
pub const RESERVED: [&str; 3] = [CONNECT_SUCCESS, SESSION_ERROR, REQUEST_ERROR];

/// The `auth` object of CONNECT, or what the handshake's query has of it. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Auth {
    /// The token.
    token: Option<Token>,
    /// The same under another name.
    access_token: Option<Token>,
    /// The classroom to enter; none: that of the lesson that is joined.
    pub classroom_id: Option<ClassroomId>,
    /// The client's label.
    pub agent_label: Option<AgentLabel>,
    /// The lesson of a join that names none.
    pub lesson_id: Option<LessonId>,
    /// Asks for the roster in connect_success.
    pub roster: Option<bool>,
    /// The trace that the connection belongs to.
    #[serde(default, deserialize_with = "trace_parent::lenient")]
    pub traceparent: Option<TraceParent>,
}

impl Auth {
    /// Reads the object; an empty text is read as an empty object.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn parse(json: &str) -> Result<Self, PayloadError> {
        if json.is_empty() { Ok(Self::default()) } else { Ok(serde_json::from_str(json)?) }
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref().or(self.access_token.as_ref())
    }
}
