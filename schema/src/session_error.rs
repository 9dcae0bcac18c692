//! Why the server ends a connection, and how the client is told (PROTOCOL 2): a message, then a close frame.
//!
//! Invariant: each error has one row, at its own index. Errors with a close code below 3500 are recoverable, the others
//! are not.
use std::{fmt, time::Duration};

use serde::Serialize;

use crate::wire;

/// An error that ends a connection with a message and a close code from the range for applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionError {
    /// The node drains.
    Terminated,
    /// A backend is away during a connect, or the gateway has a bug.
    InternalServerError,
    /// The token expired during the session.
    TokenExpired,
    /// The queue of bytes for the client is full.
    SlowConsumer,
    /// The client sent nothing within the time for a pong.
    PongTimedOut,
    /// The client exceeded a limit for too long.
    TooManyRequests,
    /// There is no token, or it is not valid.
    Unauthenticated,
    /// The first message has another type than connect_request.
    UnsupportedRequest,
    /// Before the connection has entered: the JSON is broken, or a field is wrong or missing.
    SerializationFailed,
    /// connect_request did not come in time.
    AuthTimedOut,
    /// The same agent connected again.
    Replaced,
    /// The token is valid, but not for this classroom.
    AccessDenied,
    /// An operator ended the session.
    Kicked,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The error.
    pub error: SessionError,
    /// The field `payload.type`.
    pub name: &'static str,
    /// The field `payload.title`.
    pub title: &'static str,
    /// The field `payload.status`.
    pub status: u16,
    /// The code of the close frame.
    pub close_code: u16,
}

const fn row(error: SessionError, name: &'static str, title: &'static str, status: u16, close_code: u16) -> Row {
    Row { error, name, title, status, close_code }
}

/// Every session error, in the protocol's order.
pub const TABLE: [Row; 13] = [
    row(SessionError::Terminated, "terminated", "Terminated", 422, 3001),
    row(SessionError::InternalServerError, "internal_server_error", "Internal server error", 500, 3004),
    row(SessionError::TokenExpired, "token_expired", "Token expired", 401, 3005),
    row(SessionError::SlowConsumer, "slow_consumer", "Slow consumer", 422, 3008),
    row(SessionError::PongTimedOut, "pong_timed_out", "Pong timed out", 422, 3012),
    row(SessionError::TooManyRequests, "too_many_requests", "Too many requests", 429, 3013),
    row(SessionError::Unauthenticated, "unauthenticated", "Unauthenticated", 401, 3500),
    row(SessionError::UnsupportedRequest, "unsupported_request", "Unsupported request", 405, 3501),
    row(SessionError::SerializationFailed, "serialization_failed", "Serialization failed", 422, 3501),
    row(SessionError::AuthTimedOut, "auth_timed_out", "Auth timed out", 422, 3502),
    row(SessionError::Replaced, "replaced", "Replaced", 422, 3503),
    row(SessionError::AccessDenied, "access_denied", "Access denied", 403, 3507),
    row(SessionError::Kicked, "kicked", "Kicked", 403, 3508),
];

// A row is found by its error's number.
const _: () = {
    let mut place = 0;
    while place < TABLE.len() {
        assert!(TABLE[place].error as usize == place, "the rows are in the order of the errors");
        place += 1;
    }
    assert!(SessionError::Kicked as usize + 1 == TABLE.len(), "every error has a row");
};

#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    payload: Payload<'a>,
}

#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconnect_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl SessionError {
    /// Returns the error's row of the table.
    #[must_use]
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Returns the error's `payload.type`, which is also the label of metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the code of the close frame.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        self.row().close_code
    }

    /// Returns whether the client should connect again. After any other error, the same would happen again.
    #[must_use]
    pub const fn is_recoverable(self) -> bool {
        self.close_code() < 3500
    }

    /// Returns the message before the close frame. `reconnect_after` is sent only if the client should connect again.
    #[must_use]
    pub fn message(self, reconnect_after: Duration) -> Vec<u8> {
        self.message_with(reconnect_after, None)
    }

    /// Returns the message before the close frame, with one line about what to change if there is one.
    #[must_use]
    pub fn message_with(self, reconnect_after: Duration, detail: Option<&str>) -> Vec<u8> {
        let recoverable = self.is_recoverable();
        let kind = if recoverable { "recoverable_session_error" } else { "unrecoverable_session_error" };
        wire::json(&Message { r#type: kind, payload: self.fields(reconnect_after, detail) })
    }

    /// Returns the payload of that message, as clients of Socket.IO get it.
    #[must_use]
    pub fn payload_with(self, reconnect_after: Duration, detail: Option<&str>) -> Vec<u8> {
        wire::json(&self.fields(reconnect_after, detail))
    }

    fn fields(self, reconnect_after: Duration, detail: Option<&str>) -> Payload<'_> {
        let Row { name, title, status, .. } = *self.row();
        let reconnect_after_ms = self.is_recoverable().then(|| wire::milliseconds(reconnect_after));
        Payload { r#type: name, title, status, reconnect_after_ms, detail }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for SessionError {}
