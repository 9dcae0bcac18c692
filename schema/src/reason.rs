//! Why a session ended (PROTOCOL 3).
use std::{fmt, str::FromStr};

use crate::id::IdError;

/// `Left-Reason` and the history row's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeftReason {
    /// The client sent a close frame.
    Closed,
    /// The socket broke.
    Lost,
    /// No pong.
    TimedOut,
    /// Slow consumer, violation, expiry, administrator.
    Kicked,
    /// The node shut down and the client did not come back elsewhere.
    Drained,
    /// The node died.
    NodeLost,
}

impl LeftReason {
    const ALL: [Self; 6] = [Self::Closed, Self::Lost, Self::TimedOut, Self::Kicked, Self::Drained, Self::NodeLost];

    /// The word outside.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Kicked => "kicked",
            Self::Drained => "drained",
            Self::NodeLost => "node_lost",
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
