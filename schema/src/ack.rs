//! Answers to requests (PROTOCOL 2): the seed's callback objects in the envelope of the plain WebSocket.
//!
//! Invariant: an error's text is an entry of [`AckError`]'s table, never that of an internal error.
use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{request::Ref, wire};

/// Why a request was not done, as its client is told. Each leaves the connection as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckError {
    /// Neither payload, nor URL, nor token names a lesson.
    LessonIdRequired,
    /// No such lesson here, or none that this token may enter.
    LessonNotFound,
    /// The role `hub`.
    HubCannotJoin,
    /// The token of join_lesson or refresh does not hold.
    InvalidAccessToken,
    /// It holds, but is somebody else's.
    AccessTokenOfAnotherUser,
    /// connect_request once more.
    AlreadyConnected,
    /// A `type` that is not in the table of functions.
    UnknownEvent,
    /// Broken JSON, or a wrong or missing field.
    InvalidPayload,
    /// A limit is reached.
    TooManyRequests(Duration),
    /// A backend is away.
    TryAgainLater(Duration),
    /// The handler took too long.
    TimedOut(Duration),
}

impl AckError {
    /// The table: the text outside, and for how long to wait where that helps.
    #[must_use]
    pub fn entry(self) -> (&'static str, Option<Duration>) {
        match self {
            Self::LessonIdRequired => ("lesson_id is required", None),
            Self::LessonNotFound => ("lesson not found", None),
            Self::HubCannotJoin => ("hub clients cannot join a lesson", None),
            Self::InvalidAccessToken => ("invalid access token", None),
            Self::AccessTokenOfAnotherUser => ("access token of another user", None),
            Self::AlreadyConnected => ("already connected", None),
            Self::UnknownEvent => ("unknown event", None),
            Self::InvalidPayload => ("invalid payload", None),
            Self::TooManyRequests(wait) => ("too many requests", Some(wait)),
            Self::TryAgainLater(wait) => ("try again later", Some(wait)),
            Self::TimedOut(wait) => ("timed out", Some(wait)),
        }
    }
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry().0)
    }
}

impl std::error::Error for AckError {}

#[derive(Serialize)]
struct Success<'a, D> {
    r#type: &'static str,
    r#ref: Ref,
    status: &'static str,
    data: &'a D,
}

#[derive(Serialize)]
struct Failure<'a> {
    r#type: &'static str,
    r#ref: Ref,
    status: &'static str,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// The seed's `data` of every event so far: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// A success; none is due where the request had no `ref`.
///
/// # Errors
/// Where `data` cannot be written as JSON; plain structs always can.
pub fn success<D: Serialize>(reference: Ref, data: &D) -> Result<Option<Vec<u8>>, serde_json::Error> {
    match reference {
        Ref::Missing => Ok(None),
        Ref::Faulty | Ref::Number(_) | Ref::Text(_) => {
            serde_json::to_vec(&Success { r#type: "ack", r#ref: reference, status: "SUCCESS", data }).map(Some)
        }
    }
}

/// An error, which is always told.
#[must_use]
pub fn error(reference: Ref, error: AckError) -> Vec<u8> {
    error_with(reference, error, None)
}

/// The same with one line about what to mend.
#[must_use]
pub fn error_with(reference: Ref, error: AckError, detail: Option<&str>) -> Vec<u8> {
    let (message, wait) = error.entry();
    let retry_after_ms = wait.map(wire::milliseconds);
    wire::json(&Failure { r#type: "ack", r#ref: reference, status: "ERROR", message, retry_after_ms, detail })
}
