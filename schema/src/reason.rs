//! Why a session ended (PROTOCOL 3).
use std::{fmt, str::FromStr};

use crate::{id::IdError, session_error::SessionError};

/// The reason in `Left-Reason` and in the history row's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeftReason {
    /// The client sent a close frame.
    Closed,
    /// The socket broke.
    Lost,
    /// No pong came in time.
    TimedOut,
    /// The gateway ended the session: a slow consumer, a violation, an expired token or an operator. The stream does
    /// not say which, so a reason that was read from it has no cause.
    Kicked(Option<KickCause>),
    /// The node shut down, and the client did not come back to another one.
    Drained,
    /// The node died.
    NodeLost,
}

/// Why the gateway ended a session, as in the history row's `cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KickCause {
    /// The client was told this error.
    Told(SessionError),
    /// The client broke the protocol, and only the close frame told the client so.
    Violation,
}

impl KickCause {
    /// An operator ended the session.
    pub const OPERATOR: Self = Self::Told(SessionError::Kicked);

    /// Returns the name of the error, or `violation`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Told(error) => error.name(),
            Self::Violation => "violation",
        }
    }
}

impl LeftReason {
    const ALL: [Self; 6] =
        [Self::Closed, Self::Lost, Self::TimedOut, Self::Kicked(None), Self::Drained, Self::NodeLost];

    /// Returns the word for the reason in events and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Kicked(_) => "kicked",
            Self::Drained => "drained",
            Self::NodeLost => "node_lost",
        }
    }

    /// Returns the cause of a kick, if this is a kick whose cause is known.
    #[must_use]
    pub fn cause(self) -> Option<KickCause> {
        match self {
            Self::Kicked(cause) => cause,
            Self::Closed | Self::Lost | Self::TimedOut | Self::Drained | Self::NodeLost => None,
        }
    }
}

impl fmt::Display for LeftReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LeftReason {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or(IdError("reason"))
    }
}
