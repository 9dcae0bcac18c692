//! Answers to requests (PROTOCOL 2): the seed's callback objects in the envelope of the plain WebSocket.
//!
//! Invariant: an error's text is an entry of [`AckError`]'s table, or an [`AckMessage`] that the author of a handler
//! wrote for clients, and never the text of an internal error.
use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    id::{IdError, LessonId, Offset, Seat},
    request::Ref,
    roster::RosterPage,
    wire,
};

/// Why a request failed, in a form for clients. The connection stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckError {
    /// Neither the payload, nor the URL, nor the token names a lesson.
    LessonIdRequired,
    /// The gateway has no such lesson, or the token does not admit it.
    LessonNotFound,
    /// The token's role is `hub`.
    HubCannotJoin,
    /// The token of join_lesson or refresh is not valid.
    InvalidAccessToken,
    /// The token is valid, but belongs to another user.
    AccessTokenOfAnotherUser,
    /// The connection sent a second connect_request.
    AlreadyConnected,
    /// No handler has this `type`.
    UnknownEvent,
    /// The JSON is broken, or a field is wrong or missing.
    InvalidPayload,
    /// The connection has joined no lesson.
    NotInALesson,
    /// The connection has entered no classroom, because it is a guest's.
    NotInAClassroom,
    /// A limit is reached.
    TooManyRequests(Duration),
    /// A backend is away.
    TryAgainLater(Duration),
    /// The handler took too long.
    TimedOut(Duration),
}

impl AckError {
    /// Returns the text for clients, and how long to wait if waiting helps.
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
            Self::NotInALesson => ("not in a lesson", None),
            Self::NotInAClassroom => ("not in a classroom", None),
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

/// The longest [`AckMessage`], in characters.
const MAX_MESSAGE: usize = 200;

/// A handler's own reason for refusing a request: 1 to 200 characters, written for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckMessage(Cow<'static, str>);

impl AckMessage {
    /// Creates a message that is known when the program is compiled.
    ///
    /// # Panics
    /// Panics if the text is empty or has more than 200 bytes. In a constant, this is a compile-time error.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        assert!(!text.is_empty() && text.len() <= MAX_MESSAGE, "a message has 1 to 200 characters");
        Self(Cow::Borrowed(text))
    }

    /// Checks the length.
    ///
    /// # Errors
    /// Returns an [`IdError`] if the text is empty or too long.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let fits = (1..=MAX_MESSAGE).contains(&text.chars().take(MAX_MESSAGE + 1).count());
        if fits { Ok(Self(Cow::Owned(text.to_owned()))) } else { Err(IdError("message")) }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AckMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A handler's success: `data`, and the fields beside it in the envelope. Every value that serializes to JSON can be
/// the `data`.
#[derive(Debug)]
pub struct Reply {
    data: Data,
    joined: Option<LessonJoined>,
    expires_at: Option<u64>,
}

/// The `data` of a success.
#[derive(Debug)]
enum Data {
    Own(Box<RawValue>),
    /// A page that is shared by all clients that asked at the same time.
    Roster(Arc<RosterPage>),
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Own(data) => data.serialize(serializer),
            Self::Roster(page) => page.as_ref().serialize(serializer),
        }
    }
}

impl<D: Serialize> From<D> for Reply {
    /// # Panics
    /// Panics if `data` cannot be written as JSON; plain structs always can.
    fn from(data: D) -> Self {
        let data = Data::Own(to_raw_value(&data).expect("an answer is plain data"));
        Self { data, joined: None, expires_at: None }
    }
}

/// The success of join_lesson. Its `data` is the seed's `{}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LessonJoined {
    /// The lesson.
    pub lesson: LessonId,
    /// The user's seat, if it has one.
    pub seat: Option<Seat>,
    /// How many seats the lesson has.
    pub seats: u32,
    /// The offset after which the connection gets the lesson's events, if it asked to resume.
    pub offset: Option<Offset>,
}

impl From<LessonJoined> for Reply {
    fn from(joined: LessonJoined) -> Self {
        Self { joined: Some(joined), ..Self::from(Empty {}) }
    }
}

/// The success of refresh. Its `data` is `{}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// The expiry of the new token, in Unix seconds.
    pub expires_at: u64,
}

impl From<Refreshed> for Reply {
    fn from(refreshed: Refreshed) -> Self {
        Self { expires_at: Some(refreshed.expires_at), ..Self::from(Empty {}) }
    }
}

/// The success of roster: a page, encoded once for all clients that asked at the same time.
#[derive(Clone, Debug)]
pub struct RosterRead(pub Arc<RosterPage>);

impl From<RosterRead> for Reply {
    fn from(read: RosterRead) -> Self {
        Self { data: Data::Roster(read.0), joined: None, expires_at: None }
    }
}

impl Reply {
    /// Returns the offset after which a connection that resumes gets the joined lesson's events.
    #[must_use]
    pub fn offset(&self) -> Option<Offset> {
        self.joined.as_ref()?.offset
    }
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// The request succeeded.
    Success(Reply),
    /// The request failed. The text, if there is one, says in one line what to change.
    Error(AckError, Option<String>),
    /// The handler refused the request with its own reason.
    Refused(AckMessage),
}

impl From<AckError> for Answer {
    fn from(error: AckError) -> Self {
        Self::Error(error, None)
    }
}

impl Answer {
    /// Returns the ack on the plain WebSocket, or `None` for a success of a request without `ref`.
    #[must_use]
    pub fn plain(&self, reference: Ref) -> Option<Vec<u8>> {
        match self {
            Self::Success(reply) => success(reference, reply),
            Self::Error(message, detail) => Some(error_with(reference, *message, detail.as_deref())),
            Self::Refused(message) => Some(error_of_handler(reference, message)),
        }
    }

    /// Returns the seed's object, for a callback of Socket.IO.
    #[must_use]
    pub fn object(&self) -> Vec<u8> {
        match self.error() {
            Ok(reply) => wire::json(&Done { status: "SUCCESS", data: &reply.data }),
            Err(error) => wire::json(&Failed { status: "ERROR", error }),
        }
    }

    /// Returns the argument of Socket.IO's event `request_error`, or `None` for a success.
    #[must_use]
    pub fn request_error(&self, event: &str) -> Option<Vec<u8>> {
        self.error().err().map(|error| wire::json(&RequestError { event, error }))
    }

    fn error(&self) -> Result<&Reply, ErrorFields<'_>> {
        match self {
            Self::Success(reply) => Ok(reply),
            Self::Error(error, detail) => {
                let (message, wait) = error.entry();
                let retry_after_ms = wait.map(wire::milliseconds);
                Err(ErrorFields { message, retry_after_ms, detail: detail.as_deref() })
            }
            Self::Refused(message) => {
                Err(ErrorFields { message: message.as_str(), retry_after_ms: None, detail: None })
            }
        }
    }
}

#[derive(Serialize)]
struct Done<'a> {
    status: &'static str,
    data: &'a Data,
}

#[derive(Serialize)]
struct Failed<'a> {
    status: &'static str,
    #[serde(flatten)]
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct RequestError<'a> {
    event: &'a str,
    #[serde(flatten)]
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct Success<'a> {
    r#type: &'static str,
    r#ref: Ref,
    status: &'static str,
    data: &'a Data,
    #[serde(skip_serializing_if = "Option::is_none")]
    lesson: Option<Lesson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Offset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

#[derive(Serialize)]
struct Lesson<'a> {
    lesson_id: &'a LessonId,
    seat: Option<Seat>,
    seats: u32,
}

#[derive(Serialize)]
struct Failure<'a> {
    r#type: &'static str,
    r#ref: Ref,
    status: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// The seed's empty `data`, which is also the payload of an event without fields: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Returns the ack of a success, or `None` if the request had no `ref`.
#[must_use]
pub fn success(reference: Ref, reply: &Reply) -> Option<Vec<u8>> {
    if reference == Ref::Missing {
        return None;
    }
    let lesson = reply.joined.as_ref().map(|LessonJoined { lesson, seat, seats, .. }| Lesson {
        lesson_id: lesson,
        seat: *seat,
        seats: *seats,
    });
    Some(wire::json(&Success {
        r#type: "ack",
        r#ref: reference,
        status: "SUCCESS",
        data: &reply.data,
        lesson,
        offset: reply.offset(),
        expires_at: reply.expires_at,
    }))
}

/// Returns the ack of an error, which is always sent.
#[must_use]
pub fn error(reference: Ref, error: AckError) -> Vec<u8> {
    error_with(reference, error, None)
}

/// Returns the ack of an error, with one line about what to change if there is one.
#[must_use]
pub fn error_with(reference: Ref, error: AckError, detail: Option<&str>) -> Vec<u8> {
    let (message, wait) = error.entry();
    failure(reference, message, wait.map(wire::milliseconds), detail)
}

/// Returns the ack of an error with the handler's own reason.
#[must_use]
pub fn error_of_handler(reference: Ref, message: &AckMessage) -> Vec<u8> {
    failure(reference, message.as_str(), None, None)
}

fn failure(reference: Ref, message: &str, retry_after_ms: Option<u64>, detail: Option<&str>) -> Vec<u8> {
    wire::json(&Failure { r#type: "ack", r#ref: reference, status: "ERROR", message, retry_after_ms, detail })
}
