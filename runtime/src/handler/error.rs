//! Typed errors of the machine, mapped to the wire in this one place (PROTOCOL 2): what is internal stays in the log.
use std::time::Duration;

use rollcall_schema::{AckError, SessionError, Sid};
use tracing::warn;

use crate::auth::{AuthError, HookError};
use rollcall_presence::{EnterError, JoinError};

/// When a client that met an outage may try again: each at another moment, so that they do not come back as one herd.
fn retry_after() -> Duration {
    Duration::from_millis(500 + (Sid::random().0 % 1_500) as u64)
}

/// Why a handler of an event did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Of the table: told as it stands.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// The presence service has not joined the lesson.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The authorization service gave no answer.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A token of the request does not hold.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

impl HandlerError {
    /// One line about what to mend.
    #[must_use]
    pub fn detail(&self) -> Option<&'static str> {
        if let Self::Auth(error) = self { error.detail() } else { None }
    }

    /// What the client is told.
    #[must_use]
    pub fn to_client(self) -> AckError {
        match self {
            Self::Ack(error) => error,
            // The hook logs its own faults.
            Self::Hook(_) => AckError::TryAgainLater(retry_after()),
            Self::Auth(error) if error.is_temporary() => AckError::TryAgainLater(retry_after()),
            Self::Auth(_) => AckError::InvalidAccessToken,
            Self::Join(JoinError::LessonNotFound) => AckError::LessonNotFound,
            Self::Join(JoinError::Store(_) | JoinError::Keys(_)) => {
                warn!(error = %self, "a client was asked to try again later");
                AckError::TryAgainLater(retry_after())
            }
        }
    }
}

/// A handler that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// It ran too long.
    TimedOut,
    /// It panicked.
    Panicked,
}

impl Interrupted {
    /// What the client is told.
    #[must_use]
    pub fn to_client(self) -> AckError {
        match self {
            Self::TimedOut => AckError::TimedOut(retry_after()),
            Self::Panicked => AckError::TryAgainLater(retry_after()),
        }
    }
}

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Of the table: told as it stands.
    #[error("{0:?}")]
    Session(SessionError),
    /// The token does not hold.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The authorization service gave no answer.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The presence service has made no session.
    #[error(transparent)]
    Enter(#[from] EnterError),
}

impl From<SessionError> for ConnectError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

/// Why a connection ends before it is a session, as its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The error.
    pub error: SessionError,
    /// One line about what to mend.
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

impl ConnectError {
    /// What the client is told.
    #[must_use]
    pub fn to_client(self) -> SessionError {
        match self {
            Self::Session(error) => error,
            // The keyring counts and logs them.
            Self::Auth(error) if error.is_temporary() => SessionError::InternalServerError,
            Self::Auth(_) => SessionError::Unauthenticated,
            Self::Hook(HookError::Busy) => SessionError::TooManyRequests,
            Self::Hook(HookError::Away) => SessionError::InternalServerError,
            Self::Enter(EnterError::TooManySessions) => SessionError::TooManyRequests,
            Self::Enter(EnterError::Store(error)) => {
                warn!(%error, "a connection was refused");
                SessionError::InternalServerError
            }
        }
    }
}
