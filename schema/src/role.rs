//! The token's claim `role`, which decides the flow of join_lesson (PROTOCOL 2).
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::IdError;

/// What a client is in a lesson.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The client joins a lesson by the seed's flow 1.
    Teacher,
    /// The client joins a lesson by the seed's flow 2. A token without the claim has this role.
    #[default]
    Participant,
    /// The client may enter a classroom, and joins no lesson.
    Hub,
}

impl Role {
    /// Returns the claim's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Teacher => "teacher",
            Self::Participant => "participant",
            Self::Hub => "hub",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        [Self::Teacher, Self::Participant, Self::Hub]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(IdError("role"))
    }
}
