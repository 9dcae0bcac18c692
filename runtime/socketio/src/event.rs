//! Reads an event's name and its first argument. Further arguments must be JSON and are skipped.
use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::Malformed;

/// Names with a meaning for client libraries. A client that sends an event with such a name is closed, and no event
/// with such a name is sent to a client.
pub const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// An event that a client sends.
#[derive(Debug)]
pub struct Event<'a> {
    /// The event's name. A number as name becomes its digits.
    pub name: Cow<'a, str>,
    /// The first argument.
    pub argument: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Reads the data of an event's packet.
    ///
    /// # Errors
    /// Returns a [`Malformed`] if the data is not an array that begins with a text or a number, or if the name is one
    /// of [`RESERVED`].
    pub fn parse(data: &'a str) -> Result<Self, Malformed> {
        let event: Self = serde_json::from_str(data).map_err(|_| Malformed)?;
        if RESERVED.contains(&&*event.name) { Err(Malformed) } else { Ok(event) }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Event<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array that begins with a name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Event<'de>, A::Error> {
        let name: &RawValue = array.next_element()?.ok_or_else(|| A::Error::custom("no name"))?;
        let name = name_of(name.get()).ok_or_else(|| A::Error::custom("neither a text nor a number"))?;
        let argument = array.next_element()?;
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Event { name, argument })
    }
}

/// A text that is borrowed if it has no escapes. Serde always copies a bare `Cow`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn name_of(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        // Half of a surrogate pair is valid JSON, but not a valid text. A name with such a half stays as it is written.
        b'"' => Some(serde_json::from_str(json).map_or(json.into(), |Text(name)| name)),
        b'-' | b'0'..=b'9' => Some(json.into()),
        _ => None,
    }
}
