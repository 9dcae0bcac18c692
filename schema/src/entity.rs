//! The names and the message id of events that handlers and services publish (PROTOCOL 10).
//!
//! Invariant: an [`EntityType`] is never `agent`, and a [`MessageId`] is never one of presence: only the gateway
//! publishes events of presence, and no other service can use up the message id of such an event.
use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{IdError, checked_text, text_id};

/// The entity type of presence.
pub const AGENT: &str = "agent";

const AGENT_BYTES: &[u8] = AGENT.as_bytes();

/// The longest name in an event, in bytes.
const MAX_NAME: usize = 64;

/// The longest message id, in bytes.
const MAX_MESSAGE_ID: usize = 128;

/// The beginning of the message ids of presence.
const PRESENCE: &str = "agent.";

const fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty() && bytes.len() <= MAX_NAME
}

const fn is_entity_type(text: &str) -> bool {
    is_name(text) && !matches!(text.as_bytes(), AGENT_BYTES)
}

fn is_message_id(text: &str) -> bool {
    let printable = (1..=MAX_MESSAGE_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    printable && !text.starts_with(PRESENCE)
}

/// A name in an event. Handlers have it as a constant, and services send it as a text.
macro_rules! event_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(Cow<'static, str>);

        impl $name {
            /// Makes a name from a constant text.
            ///
            /// # Panics
            /// Panics if the text breaks the rule of its type. In a constant, this is a compile-time error.
            #[must_use]
            pub const fn from_static(text: &'static str) -> Self {
                assert!($check(text), concat!("not a valid ", $kind));
                Self(Cow::Borrowed(text))
            }

            /// Checks the text.
            ///
            /// # Errors
            /// Returns an [`IdError`] if the text breaks the rule of its type.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if $check(text) { Ok(Self(Cow::Owned(text.to_owned()))) } else { Err(IdError($kind)) }
            }
        }

        checked_text!($name, $kind);
    };
}

event_name! {
    /// The type of the thing that an event is about, such as `hand`: 1 to 64 of `a-z 0-9 _ -`, and never `agent`. It is
    /// the last token of the event's subject.
    EntityType, "entity_type", is_entity_type
}
event_name! {
    /// What happened to the entity, such as `raised`: 1 to 64 of `a-z 0-9 _ -`.
    Operation, "operation", is_name
}

text_id! {
    /// The `Nats-Msg-Id` of an event other than those of presence: 1 to 128 printable ASCII characters without space,
    /// not starting with `agent.`. A second event with the same id within the stream's duplicate window is not stored.
    MessageId, "message id", is_message_id
}

#[cfg(test)]
mod tests {
    use super::*;

    const HAND: EntityType = EntityType::from_static("hand");

    #[test]
    fn a_name_is_a_short_word_in_lower_case() {
        assert_eq!(EntityType::parse("hand").unwrap(), HAND);
        for faulty in ["", "Hand", "ha nd", "hand.raised", "hand*", ">", "händ", "hand\r\n", &"a".repeat(65)] {
            assert!(EntityType::parse(faulty).is_err() && Operation::parse(faulty).is_err(), "{faulty:?}");
        }
        assert!(EntityType::parse(&"a".repeat(64)).is_ok());
    }

    #[test]
    fn nobody_forges_presence() {
        assert!(EntityType::parse("agent").is_err() && Operation::parse("agent").is_ok());
        assert!(MessageId::parse("agent.entered:x:1:0").is_err());
        assert!(MessageId::parse("agents-of-the-day").is_ok());
    }

    #[test]
    fn a_message_id_is_one_line_of_printable_text() {
        for faulty in ["", "a b", "a\nb", "é", &"a".repeat(129)] {
            assert!(MessageId::parse(faulty).is_err(), "{faulty:?}");
        }
        assert_eq!(MessageId::parse("msg_x:0").unwrap().as_str(), "msg_x:0");
    }
}
