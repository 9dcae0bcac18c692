//! Events on their way to clients (PROTOCOL 3).
//!
//! Invariant: what goes out is one valid JSON object, and the body in it is byte for byte what was published. It is
//! checked without building a tree, in linear time, at any depth of nesting.
use std::{borrow::Cow, fmt, io::Write};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::{event::EntityEvent, id::Offset, wire};

/// A body that is not exactly one JSON object in UTF-8: dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not a JSON object")]
pub struct NotAnObject;

/// A checked event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push<'a> {
    body: &'a [u8],
    /// Where the body is to be wrapped.
    id: Option<EntityEvent<'a>>,
}

impl<'a> Push<'a> {
    /// Checks a body. It is wrapped as `{"id":...,"payload":body}` if it has no `id` of its own (`"id":null` is one) and
    /// `entity` is known from the headers.
    ///
    /// # Errors
    /// [`NotAnObject`].
    pub fn parse(body: &'a [u8], entity: Option<EntityEvent<'a>>) -> Result<Self, NotAnObject> {
        let text = std::str::from_utf8(body).map_err(|_| NotAnObject)?;
        let Outline { has_id } = serde_json::from_str(text).map_err(|_| NotAnObject)?;
        Ok(Self { body, id: entity.filter(|_| !has_id) })
    }

    /// For connections that did not ask to resume.
    #[must_use]
    pub fn plain(&self) -> Cow<'a, [u8]> {
        match self.id {
            None => Cow::Borrowed(self.body),
            Some(id) => {
                let mut out = Vec::with_capacity(self.body.len() + 128);
                self.wrap(&id, &mut out);
                Cow::Owned(out)
            }
        }
    }

    /// For connections that asked to resume: `{"offset":N,"event":...}`.
    #[must_use]
    pub fn resumable(&self, offset: Offset) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 192);
        write!(out, r#"{{"offset":{offset},"event":"#).expect("a Vec takes every byte");
        match &self.id {
            None => out.extend_from_slice(self.body),
            Some(id) => self.wrap(id, &mut out),
        }
        out.push(b'}');
        out
    }

    fn wrap(&self, id: &EntityEvent<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"id":"#);
        out.extend_from_slice(&wire::json(id));
        out.extend_from_slice(br#","payload":"#);
        out.extend_from_slice(self.body);
        out.push(b'}');
    }
}

/// What there is to know of a body.
struct Outline {
    has_id: bool,
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OutlineVisitor)
    }
}

struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut has_id = false;
        while let Some((Key(is_id), IgnoredAny)) = map.next_entry()? {
            has_id |= is_id;
        }
        Ok(Outline { has_id })
    }
}

/// Whether a key is `id`, however it is spelled (`"\u0069d"` is the same key).
struct Key(bool);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes: a key with a lone surrogate is no text, but is JSON.
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Key, E> {
        Ok(Key(key == b"id"))
    }
}
