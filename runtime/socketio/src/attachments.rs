//! Collects the binary messages that follow a packet, until the packet is complete.
//!
//! Invariant: a packet keeps at most `max` bytes, including its own text, and [`MAX_ATTACHMENTS`] messages. Each
//! placeholder in it names one of its messages.
use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Malformed, Packet, packet::MAX_ATTACHMENTS};

/// A packet that waits for its attachments.
#[derive(Debug)]
pub struct Attachments {
    packet: Box<str>,
    missing: usize,
    received: Vec<Box<[u8]>>,
    room: usize,
}

impl Attachments {
    /// Starts for a packet that was read from `text`. The packet and its attachments may have `max` bytes together.
    ///
    /// # Errors
    /// Returns a [`Malformed`] if a placeholder names no attachment.
    pub fn new(text: &str, packet: &Packet<'_>, max: usize) -> Result<Self, Malformed> {
        debug_assert!(packet.attachments <= MAX_ATTACHMENTS);
        check_placeholders(packet.data, packet.attachments)?;
        let room = max.checked_sub(text.len()).ok_or(Malformed)?;
        Ok(Self { packet: text.into(), missing: packet.attachments, received: Vec::new(), room })
    }

    /// Takes the next binary message.
    ///
    /// # Errors
    /// Returns a [`Malformed`] if the packet has too many bytes.
    pub fn push(&mut self, data: &[u8]) -> Result<(), Malformed> {
        self.room = self.room.checked_sub(data.len()).ok_or(Malformed)?;
        self.missing = self.missing.checked_sub(1).ok_or(Malformed)?;
        self.received.push(data.into());
        Ok(())
    }

    /// Returns whether all attachments have come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Returns the packet's text and its attachments.
    #[must_use]
    pub fn into_parts(self) -> (Box<str>, Vec<Box<[u8]>>) {
        (self.packet, self.received)
    }
}

/// Checks that every `{"_placeholder":true,"num":N}` has an `N` below `attachments`. JSON that is nested deeper than
/// the parser's limit of 128 is malformed.
fn check_placeholders(data: &str, attachments: usize) -> Result<(), Malformed> {
    if data.is_empty() {
        return Ok(());
    }
    let mut deserializer = serde_json::Deserializer::from_str(data);
    Placeholders { attachments: attachments as u64 }.deserialize(&mut deserializer).map_err(|_| Malformed)
}

#[derive(Clone, Copy)]
struct Placeholders {
    attachments: u64,
}

impl<'de> DeserializeSeed<'de> for Placeholders {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Placeholders {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let (mut is_placeholder, mut number) = (false, None::<u64>);
        while let Some(key) = object.next_key::<Cow<'de, str>>()? {
            match &*key {
                "_placeholder" => is_placeholder = object.next_value::<&RawValue>()?.get() == "true",
                "num" => number = object.next_value::<&RawValue>()?.get().parse().ok(),
                _ => object.next_value_seed(self)?,
            }
        }
        if is_placeholder && number.is_none_or(|number| number >= self.attachments) {
            return Err(A::Error::custom("a placeholder without its attachment"));
        }
        Ok(())
    }
}
