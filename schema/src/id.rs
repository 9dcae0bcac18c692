//! Ids as newtypes, so that one kind of id is never taken for another (PROTOCOL 1 and 6).
//!
//! Invariant: every value has passed the check of its type, so it is safe in a subject, a key or a query.
use std::{borrow::Cow, fmt, marker::PhantomData, num::NonZeroI32, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};
use uuid::Uuid;

/// The error for a text that is not an id of this type. It names the type and never the text, because the text comes
/// from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct IdError(pub &'static str);

/// The rule for a small object ([`JsonObject`](crate::JsonObject)), in words.
pub(crate) const OBJECT_RULE: &str = "a JSON object of at most 1024 bytes";

/// The rules for the ids in requests, for error messages to clients.
pub(crate) const RULES: [(&str, &str); 4] = [
    ("agent_label", "[A-Za-z0-9_-]{1,64}"),
    ("classroom_id", "a UUID with hyphens"),
    ("lesson_id", "[A-Za-z0-9_-]{1,64}"),
    ("state", OBJECT_RULE),
];

/// The methods that every checked text has.
macro_rules! checked_text {
    ($name:ident, $kind:literal) => {
        impl $name {
            /// Returns the text.
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

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::id::checked(deserializer, $kind)
            }
        }
    };
}
pub(crate) use checked_text;

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
            /// Returns an [`IdError`] if the text breaks the rule of its type.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if $check(text) { Ok(Self(text.into())) } else { Err(IdError($kind)) }
            }
        }

        checked_text!($name, $kind);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

pub(crate) use text_id;

/// An id that the database assigns as a number.
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

/// Reads a text and checks it in place. A text that fails is never copied.
pub(crate) fn checked<'de, D, T>(deserializer: D, kind: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = IdError>,
{
    struct Checked<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err = IdError>> Visitor<'_> for Checked<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Checked(kind, PhantomData))
}

fn of(text: &str, most: usize, extra: &[u8]) -> bool {
    !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

fn is_word(text: &str) -> bool {
    of(text, 64, b"_-")
}

/// Returns whether a text is a sub. The sub is the name of the user's key in Redis, so it must not start as other keys
/// do. The forbidden characters are wildcards in subjects, hash tags in keys, or end a text in some format.
fn is_user(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"*>{}\"'\\".contains(&b);
    (1..=128).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with("lesson_")
        && !text.starts_with("rollcall:")
}

/// The characters of a sub that are percent-encoded in an agent's id: above all a dot, which would separate the
/// audience.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'=')
    .remove(b'+')
    .remove(b'/')
    .remove(b'@')
    .remove(b'|')
    .remove(b'~')
    .remove(b'-');

/// Reads the sub of an agent's id. A sub has only one encoding, so the texts of agent ids can be compared.
fn decode_user(encoded: &str) -> Option<Cow<'_, str>> {
    let user = percent_decode_str(encoded).decode_utf8().ok()?;
    let is_canonical = Cow::from(utf8_percent_encode(&user, ENCODED)) == encoded;
    (is_user(&user) && is_canonical).then_some(user)
}

fn is_dns_name(text: &str) -> bool {
    let is_part = |part: &str| of(part, 63, b"-") && !part.starts_with('-') && !part.ends_with('-');
    text.len() <= 253 && text.split('.').all(is_part)
}

fn split_agent(text: &str) -> Option<(&str, &str, &str)> {
    let (label, rest) = text.split_once('.')?;
    let (user, audience) = rest.split_once('.')?;
    Some((label, user, audience))
}

fn is_agent(text: &str) -> bool {
    split_agent(text)
        .is_some_and(|(label, user, audience)| is_word(label) && decode_user(user).is_some() && is_dns_name(audience))
}

text_id! {
    /// A lesson: `[A-Za-z0-9_-]{1,64}`.
    LessonId, "lesson_id", is_word
}
text_id! {
    /// The label of an agent's client, such as `web`: `[A-Za-z0-9_-]{1,64}`.
    AgentLabel, "agent_label", is_word
}
text_id! {
    /// A token's `sub`, the seed's user_id and client_id: 1 to 128 printable ASCII characters without space, `*`, `>`,
    /// `{`, `}`, quotes or backslash, not starting with `lesson_` or `rollcall:`.
    UserId, "sub", is_user
}
text_id! {
    /// A token's `aud`: a DNS name.
    Audience, "aud", is_dns_name
}
text_id! {
    /// An agent: `{agent_label}.{sub}.{aud}`, with the sub percent-encoded outside `[A-Za-z0-9_=+/@|~-]`. So neither
    /// label nor sub has a dot, and the id can be split again.
    AgentId, "agent_id", is_agent
}

impl AgentId {
    /// Builds an agent's id.
    #[must_use]
    pub fn new(label: &AgentLabel, user: &UserId, audience: &Audience) -> Self {
        Self(format!("{label}.{}.{audience}", utf8_percent_encode(user.as_str(), ENCODED)).into())
    }

    fn parts(&self) -> (&str, &str, &str) {
        split_agent(&self.0).expect("an agent's id was checked when it was made")
    }

    /// Returns the `agent_label` in this id.
    #[must_use]
    pub fn label(&self) -> AgentLabel {
        AgentLabel(self.parts().0.into())
    }

    /// Returns the `sub` in this id, decoded.
    #[must_use]
    pub fn user(&self) -> UserId {
        let user = percent_decode_str(self.parts().1).decode_utf8();
        UserId(user.expect("an agent's id was checked when it was made").into())
    }

    /// Returns the `aud` in this id.
    #[must_use]
    pub fn audience(&self) -> Audience {
        Audience(self.parts().2.into())
    }
}

number_id! {
    /// The presence of an agent in a classroom; events have it as `sequence_id`. It stays the same in a takeover.
    SessionId, i64
}
number_id! {
    /// The number of a running process, which the database assigns.
    NodeId, i64
}
number_id! {
    /// How often a node's lease changed its owner. Every write carries it, so that a node that lost its lease writes
    /// nothing.
    Epoch, i64
}
number_id! {
    /// The version of an agent's state, role and info. Of two versions the higher one is later. 0: none of them has
    /// changed since the agent entered.
    StateVersion, i64
}
/// A random number in an outbox row that is part of the event's message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub i64);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// The id that successive connections of a client of Socket.IO share, if each resumes where the previous connection
/// broke (PROTOCOL 11, Recovery). The id is stored with the session of these connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResumeId(pub NonZeroI32);

impl ResumeId {
    /// Makes a new id.
    ///
    /// # Panics
    /// Panics if the system has no random numbers, because nothing safe can be done then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("the system's random numbers are at hand");
        Self(NonZeroI32::new(i32::from_ne_bytes(bytes)).unwrap_or(NonZeroI32::MAX))
    }
}

number_id! {
    /// A seat in a lesson, from 1.
    Seat, u32
}
number_id! {
    /// The sequence number of an event in the stream. The first event has 1, so 0 is before it.
    Offset, u64
}

/// A classroom's id: a UUID of any version, written with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassroomId(pub Uuid);

impl ClassroomId {
    /// Checks the text: the 36 characters of a hyphenated UUID, in either case.
    ///
    /// # Errors
    /// Returns an [`IdError`] for any other text, also for other spellings of a UUID.
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
        checked(deserializer, "classroom_id")
    }
}
