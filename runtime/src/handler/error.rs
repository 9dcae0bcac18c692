//! Typed errors of the gateway, and their mapping to the protocol, which is only in this file (PROTOCOL 2). Internal
//! details stay in the log.
use std::time::Duration;

use rollcall_bus::PublishError;
use rollcall_schema::{AckError, AckMessage, Answer, SessionError, Sid};
use tracing::{error, warn};

use crate::{
    auth::{AuthError, HookError},
    handler::publisher::EventError,
};
use rollcall_presence::{EnterError, JoinError, LeaveLessonError, SetStateError};
use rollcall_store::StoreError;

/// Returns how long a client that met an outage should wait. The time is random, so that the clients do not all come
/// back at once.
fn retry_after() -> Duration {
    Duration::from_millis(500 + (Sid::random().0 % 1_500) as u64)
}

/// Why a handler of an event failed.
///
/// ```
/// use rollcall_runtime::HandlerError;
/// use rollcall_schema::{AckMessage, Ref};
///
/// const OVER: AckMessage = AckMessage::from_static("the poll is over");
///
/// fn vote(open: bool) -> Result<(), HandlerError> {
///     if open { Ok(()) } else { Err(OVER.into()) }
/// }
///
/// let ack = vote(false).unwrap_err().into_answer().plain(Ref::Number(1));
/// assert_eq!(ack.unwrap(), br#"{"type":"ack","ref":1,"status":"ERROR","message":"the poll is over"}"#);
/// ```
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// An error of the protocol's table, which the client is told unchanged.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// The handler's own reason, which the client is told unchanged.
    #[error("{0}")]
    Refused(AckMessage),
    /// A service that the handler needs gave no answer. The client is told to try again later, and the error is logged.
    #[error(transparent)]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// An event was not published.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The presence service could not join the lesson.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The presence service could not leave the lesson.
    #[error(transparent)]
    Leave(#[from] LeaveLessonError),
    /// The presence service could not set the state.
    #[error(transparent)]
    State(#[from] SetStateError),
    /// SQL gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The presence service could not create a session.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The authorization service gave no answer.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A token in the request is not accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Says who caused an error. Errors that clients cause say nothing about the gateway's health, and are counted
/// separately.
pub(super) trait Blame {
    /// Returns whether the client caused the error, by what it sent or how often.
    fn is_clients(&self) -> bool;
}

impl Blame for HandlerError {
    fn is_clients(&self) -> bool {
        match self {
            Self::Ack(error) => !matches!(error, AckError::TryAgainLater(_) | AckError::TimedOut(_)),
            Self::Auth(error) => !error.is_temporary(),
            Self::Event(EventError::NotInLesson | EventError::NotInClassroom | EventError::TooLarge(_))
            | Self::Refused(_)
            | Self::Join(JoinError::LessonNotFound)
            | Self::Leave(LeaveLessonError::NotInALesson)
            | Self::State(SetStateError::NotInAClassroom)
            | Self::Enter(EnterError::TooManySessions) => true,
            Self::Event(EventError::NotAnObject | EventError::NotStored(_))
            | Self::Join(JoinError::Store(_) | JoinError::Keys(_))
            | Self::Leave(LeaveLessonError::Store(_))
            | Self::State(SetStateError::Store(_))
            | Self::Enter(EnterError::Store(_))
            | Self::Unavailable(_)
            | Self::Store(_)
            | Self::Hook(_) => false,
        }
    }
}

impl From<AckMessage> for HandlerError {
    fn from(message: AckMessage) -> Self {
        Self::Refused(message)
    }
}

impl HandlerError {
    /// Returns the answer for the client.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        let detail = if let Self::Auth(error) = &self { error.detail().map(str::to_owned) } else { None };
        let entry = match self {
            Self::Refused(message) => return Answer::Refused(message),
            Self::Ack(error) => error,
            // The hook logs its own faults.
            Self::Hook(_) => AckError::TryAgainLater(retry_after()),
            Self::Auth(error) if error.is_temporary() => AckError::TryAgainLater(retry_after()),
            Self::Auth(_) => AckError::InvalidAccessToken,
            Self::Event(error) => of_event(&error),
            Self::Join(JoinError::LessonNotFound) => AckError::LessonNotFound,
            Self::Leave(LeaveLessonError::NotInALesson) => AckError::NotInALesson,
            Self::State(SetStateError::NotInAClassroom) => AckError::NotInAClassroom,
            Self::Enter(EnterError::TooManySessions) => AckError::TooManyRequests(retry_after()),
            Self::Unavailable(_)
            | Self::Enter(EnterError::Store(_))
            | Self::Join(JoinError::Store(_) | JoinError::Keys(_))
            | Self::Leave(LeaveLessonError::Store(_))
            | Self::State(SetStateError::Store(_))
            | Self::Store(_) => {
                warn!(error = %self, "a client was asked to try again later");
                AckError::TryAgainLater(retry_after())
            }
        };
        Answer::Error(entry, detail)
    }
}

fn of_event(event_error: &EventError) -> AckError {
    match event_error {
        EventError::NotInLesson => AckError::NotInALesson,
        EventError::NotInClassroom => AckError::NotInAClassroom,
        // The body that a handler publishes is as large as the body that its client sent.
        EventError::TooLarge(_) | EventError::NotStored(PublishError::Refused(_)) => {
            warn!(error = %event_error, "an event of a handler was refused");
            AckError::InvalidPayload
        }
        EventError::NotAnObject => {
            error!(error = %event_error, "a handler published what is no event");
            AckError::TryAgainLater(retry_after())
        }
        EventError::NotStored(PublishError::Away(_) | PublishError::Behind | PublishError::Busy) => {
            warn!(error = %event_error, "an event of a handler was not stored: its client was asked to try again later");
            AckError::TryAgainLater(retry_after())
        }
    }
}

/// Why a handler did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The handler ran too long.
    TimedOut,
    /// The handler panicked.
    Panicked,
}

impl Interrupted {
    /// Returns the error for the client.
    #[must_use]
    pub fn to_client(self) -> AckError {
        match self {
            Self::TimedOut => AckError::TimedOut(retry_after()),
            Self::Panicked => AckError::TryAgainLater(retry_after()),
        }
    }
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An error of the protocol's table, which the client is told unchanged.
    #[error("{0:?}")]
    Session(SessionError),
    /// The token is not accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The authorization service gave no answer.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The presence service could not create a session.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// SQL gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SessionError> for ConnectError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

/// The error that a client is told if its connection ends before it has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The error.
    pub error: SessionError,
    /// What the client should change, in one line.
    pub detail: Option<&'static str>,
}

impl From<SessionError> for Refused {
    fn from(error: SessionError) -> Self {
        Self { error, detail: None }
    }
}

impl From<ConnectError> for Refused {
    fn from(error: ConnectError) -> Self {
        let detail = if let ConnectError::Auth(error) = &error { error.detail() } else { None };
        Self { error: error.to_client(), detail }
    }
}

impl Blame for ConnectError {
    fn is_clients(&self) -> bool {
        match self {
            Self::Session(error) => *error != SessionError::InternalServerError,
            Self::Auth(error) => !error.is_temporary(),
            Self::Enter(EnterError::TooManySessions) => true,
            Self::Enter(EnterError::Store(_)) | Self::Store(_) | Self::Hook(_) => false,
        }
    }
}

impl ConnectError {
    /// Returns the error for the client.
    #[must_use]
    pub fn to_client(self) -> SessionError {
        match self {
            Self::Session(error) => error,
            // The keyring counts and logs refused tokens.
            Self::Auth(error) if error.is_temporary() => SessionError::InternalServerError,
            Self::Auth(_) => SessionError::Unauthenticated,
            Self::Hook(HookError::Busy) => SessionError::TooManyRequests,
            Self::Hook(HookError::Away) => SessionError::InternalServerError,
            Self::Enter(EnterError::TooManySessions) => SessionError::TooManyRequests,
            Self::Enter(EnterError::Store(error)) | Self::Store(error) => {
                warn!(%error, "a connection was refused");
                SessionError::InternalServerError
            }
        }
    }
}
