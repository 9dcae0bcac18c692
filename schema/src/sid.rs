//! The opaque id of a socket (PROTOCOL 1).
//!
//! Invariant: a sid cannot be guessed, and its text is canonical: each sid has one spelling.
use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, Serializer};

use crate::id::IdError;

/// The id of a socket: 128 random bits, written as 22 characters of base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(pub u128);

impl Sid {
    /// Makes a new sid.
    ///
    /// # Panics
    /// Panics if the system has no random numbers, because nothing safe can be done then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system's random numbers are at hand");
        Self(u128::from_be_bytes(bytes))
    }

    /// Reads the text that [`fmt::Display`] writes.
    ///
    /// # Errors
    /// Returns an [`IdError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.map(|bytes| Self(u128::from_be_bytes(bytes))).ok_or(IdError("sid"))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl FromStr for Sid {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl Serialize for Sid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
