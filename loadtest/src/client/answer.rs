//! What a client gets: pushes, errors, and the end of its connection.

use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite;

/// Why a client did not get what it waited for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No TCP connection could be made, or it broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// The upgrade was refused with this status.
    #[error("the upgrade was answered with {0}")]
    Refused(u16),
    /// The server broke RFC 6455, or the connection broke.
    #[error("{0}")]
    WebSocket(tungstenite::Error),
    /// Nothing came within this time.
    #[error("nothing came within {0:?}")]
    Silence(Duration),
    /// The connection was closed instead.
    #[error("closed instead: {0:?}")]
    Closed(Closing),
    /// Another message came instead.
    #[error("came instead: {0}")]
    Unexpected(Value),
    /// A message was not JSON.
    #[error("no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<tungstenite::Error> for ClientError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Refused(response.status().as_u16()),
            tungstenite::Error::Io(error) => Self::Io(error),
            other => Self::WebSocket(other),
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The last message, if it was a session error.
    pub error: Option<Value>,
    /// The code of the close frame. `None` if TCP ended without one.
    pub code: Option<u16>,
}

/// A push.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The offset, if the client asked to resume.
    pub offset: Option<u64>,
    /// The event itself.
    pub body: Value,
}

impl Event {
    /// Returns `entered`, `left` or `updated` if this is an agent's event.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.body.pointer("/payload/label")?.as_str()
    }

    /// Returns the agent that an agent's event is about.
    #[must_use]
    pub fn agent_id(&self) -> Option<&str> {
        self.body.pointer("/payload/agent_id")?.as_str()
    }

    /// Returns the session that an agent's event is about.
    #[must_use]
    pub fn sequence_id(&self) -> Option<i64> {
        self.body.pointer("/id/sequence_id")?.as_i64()
    }
}

/// Reads a message as a push. An answer or a session error is returned as the error.
pub(super) fn as_event(mut message: Value) -> Result<Event, Value> {
    if let (Some(offset), Some(event)) = (message["offset"].as_u64(), message.get_mut("event")) {
        let body = event.take();
        let offset = Some(offset);
        return Ok(Event { offset, body });
    }
    let kind = message["type"].as_str().unwrap_or_default();
    if kind == "ack" || kind == "connect_success" || kind.ends_with("_session_error") {
        return Err(message);
    }
    Ok(Event { offset: None, body: message })
}

/// Returns whether this error of the codec means that TCP has ended, for example by a reset.
pub(super) fn ended_without_close(error: &tungstenite::Error) -> bool {
    use tungstenite::error::ProtocolError;
    matches!(
        error,
        tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Io(_)
            | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
    )
}
