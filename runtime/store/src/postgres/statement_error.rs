//! What a failed statement means for the next step, and its text.
use std::time::Duration;

use tokio_postgres::error::{Error, SqlState};

use crate::StoreError;

/// The text that says what an operator must change if the role lacks a right.
pub(super) const GRANT: &str = "grant the role what is missing (README, \"Upgrades\", has the grants)";
/// The pause before a deadlock's victim tries again. It is long enough for the other transaction to commit.
pub(super) const PAUSE: Duration = Duration::from_millis(3);

/// What a failed statement means for the next step.
pub(super) enum Failure {
    /// The backend answered, so its connection can be used.
    Answered(StoreError),
    /// Another transaction conflicted with the statement. The same statement may succeed now.
    Again(StoreError),
    /// The server takes no writes any more, because it became a standby. Another server may have replaced it.
    ReadOnly(StoreError),
    /// The backend is gone, or the statement's outcome is unknown.
    Broken(StoreError),
}

impl Failure {
    /// Returns the error for a caller that does not try again.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Answered(error) | Self::Again(error) | Self::ReadOnly(error) | Self::Broken(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Some(code) = error.code() else {
            return Self::Broken(StoreError::Unavailable(text(&error)));
        };
        match code {
            &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::LOCK_NOT_AVAILABLE => {
                Self::Again(StoreError::Unavailable(text(&error)))
            }
            &SqlState::QUERY_CANCELED => Self::Answered(StoreError::Unavailable(text(&error))),
            &SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly(StoreError::Unavailable(text(&error))),
            &SqlState::DISK_FULL => {
                Self::Broken(StoreError::Unavailable(format!("{}; free space on the server's disk", text(&error))))
            }
            // The classes of errors: connection, resources, operator intervention, system, internal.
            code if ["08", "53", "57", "58", "XX"].contains(&&code.code()[..2]) => {
                Self::Broken(StoreError::Unavailable(text(&error)))
            }
            &SqlState::INSUFFICIENT_PRIVILEGE => {
                Self::Answered(StoreError::Refused(format!("{}: {GRANT}", text(&error))))
            }
            _ => Self::Answered(StoreError::Refused(text(&error))),
        }
    }
}

/// Returns the text of an error with its cause, which tokio-postgres leaves out.
pub(super) fn text(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
