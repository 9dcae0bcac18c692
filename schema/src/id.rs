//! Ids as newtypes, so that none is taken for another (PROTOCOL 1 and 6).
//!
//! Invariant: a value that exists has passed the check of its kind, so it may go near a subject, a key or a query.
use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not an id of the kind asked for. Names the kind, never the text: it comes from strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct IdError(pub &'static str);

/// A checked text id: construction, display and serde.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// [`IdError`], where it breaks the rule of its kind.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(IdError($kind)) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A number that the database hands out.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

fn of(text: &str, most: usize, extra: &[u8]) -> bool {
    !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

text_id! {
    /// A lesson: `[A-Za-z0-9_-]{1,64}`.
    LessonId, "lesson_id", |text| of(text, 64, b"_-")
}
text_id! {
    /// What an agent calls its client, `web` for one: `[A-Za-z0-9_-]{1,64}`.
    AgentLabel, "agent_label", |text| of(text, 64, b"_-")
}
text_id! {
    /// A token's `sub`, the seed's user_id and client_id: `[A-Za-z0-9_=+/-]{1,128}`. It is a Redis key of its own,
    /// so it must not start with `lesson_`.
    UserId, "sub", |text| of(text, 128, b"_=+/-") && !text.starts_with("lesson_")
}
text_id! {
    /// A token's `aud`: a DNS name.
    Audience, "aud", |text| text.len() <= 253 && text.split('.').all(|label| of(label, 63, b"-") && !label.starts_with('-') && !label.ends_with('-'))
}
text_id! {
    /// An agent: `{agent_label}.{sub}.{aud}`. Neither label nor sub has a dot, so it splits again.
    AgentId, "agent_id", |text| {
        let mut parts = text.splitn(3, '.');
        let mut next = |check: fn(&str) -> bool| parts.next().is_some_and(check);
        next(|t| AgentLabel::parse(t).is_ok()) && next(|t| UserId::parse(t).is_ok()) && next(|t| Audience::parse(t).is_ok())
    }
}

impl AgentId {
    /// Puts an agent's id together.
    #[must_use]
    pub fn new(label: &AgentLabel, user: &UserId, audience: &Audience) -> Self {
        Self(format!("{label}.{user}.{audience}").into())
    }

    /// The `sub` in it.
    #[must_use]
    pub fn user(&self) -> UserId {
        UserId(self.0.split('.').nth(1).unwrap_or_default().into())
    }
}

number_id! {
    /// An agent's presence in a classroom: `sequence_id` in events. Survives a takeover.
    SessionId, i64
}
number_id! {
    /// A running process, as the database numbers it.
    NodeId, i64
}
number_id! {
    /// How often a node's lease changed hands: every write carries it (fencing).
    Epoch, i64
}
number_id! {
    /// A place in a lesson, from 1.
    Seat, u32
}
number_id! {
    /// An event's place in the stream: its sequence number, from 1. 0 is before the first.
    Offset, u64
}

/// A classroom: any UUID, written with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassroomId(pub Uuid);

impl ClassroomId {
    /// Checks the text: the 36 characters of a hyphenated UUID, in either case.
    ///
    /// # Errors
    /// [`IdError`] for any other text, other spellings of UUIDs too.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let hyphenated = text.len() == 36;
        Uuid::try_parse(text).ok().filter(|_| hyphenated).map(Self).ok_or(IdError("classroom_id"))
    }
}

impl fmt::Display for ClassroomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClassroomId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl Serialize for ClassroomId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClassroomId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// One socket: 128 random bits, 22 characters of base64url outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(pub u128);

impl Sid {
    /// A new one.
    ///
    /// # Panics
    /// Where the system has no randomness: nothing safe can be done then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system's random numbers are at hand");
        Self(u128::from_be_bytes(bytes))
    }

    /// Reads what [`fmt::Display`] wrote.
    ///
    /// # Errors
    /// [`IdError`] for any other text.
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

impl Serialize for Sid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
