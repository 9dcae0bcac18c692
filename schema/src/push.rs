//! Events on their way to clients (PROTOCOL 3).
//!
//! Invariant: a push is one valid JSON object, and its body is published byte for byte as it came. The body is checked
//! without building a tree, in linear time, at any depth of nesting.
use std::{borrow::Cow, fmt, io::Write};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{event::EntityEvent, id::Offset, members::members, wire};

/// Why a body is not pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The body is not exactly one JSON object in UTF-8.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// The body's `type` is that of a message of the gateway, so a client would take the body for such a message.
    #[error("the body's type is one of the gateway's own messages")]
    ReservedType,
}

/// The `type` of every message of the gateway other than pushes.
const RESERVED: [&[u8]; 5] =
    [b"ack", b"ping", b"connect_success", b"recoverable_session_error", b"unrecoverable_session_error"];

/// A checked event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push<'a> {
    body: &'a [u8],
    /// The `id` with which the body is wrapped. `None` if it is sent as it is.
    id: Option<EntityEvent<'a>>,
}

impl<'a> Push<'a> {
    /// Checks a body. It is wrapped as `{"id":...,"payload":body}` if it has no `id` of its own (`"id":null` counts as
    /// one) and `entity` is known from the headers.
    ///
    /// # Errors
    /// Returns a [`PushError`] if the body is not a valid push.
    pub fn parse(body: &'a [u8], entity: Option<EntityEvent<'a>>) -> Result<Self, PushError> {
        let Outline { has_id, reserved } = Outline::read(body)?;
        let id = entity.filter(|_| !has_id);
        // A wrapped body's `type` is inside the payload, where it does no harm.
        if reserved && id.is_none() { Err(PushError::ReservedType) } else { Ok(Self { body, id }) }
    }

    /// Returns the body to store for an event of this entity. Clients get it as `{"id":...,"payload":body}`, whatever
    /// is in it. A body with an `id` of its own would be forwarded unchanged, so such a body is wrapped before it is
    /// stored.
    ///
    /// # Errors
    /// Returns [`PushError::NotAnObject`] if the body is not a JSON object.
    pub fn wrapped_body(body: &'a [u8], entity: EntityEvent<'a>) -> Result<Cow<'a, [u8]>, PushError> {
        let has_id = Outline::read(body)?.has_id;
        let wrapped = Self { body, id: Some(entity) };
        Ok(if has_id { wrapped.plain() } else { Cow::Borrowed(body) })
    }

    /// Returns the name of the event, as `{entity_type}.{operation}`. `None` if the body has no `id` of the seed's form
    /// with names of `[a-z0-9_-]+`.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let named = match self.id {
            Some(EntityEvent { entity_type, operation, .. }) => {
                Named { entity_type: entity_type.into(), operation: operation.into() }
            }
            None => serde_json::from_slice::<WithId<'_>>(self.body).ok()?.id,
        };
        let fine = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
        };
        let Named { entity_type, operation } = named;
        (fine(&entity_type) && fine(&operation)).then(|| format!("{entity_type}.{operation}"))
    }

    /// Returns whether a body's own `id` says that it is an event of this entity type.
    #[must_use]
    pub fn names_entity(body: &str, entity_type: &str) -> bool {
        let is_it =
            |value: &RawValue| serde_json::from_str(value.get()).is_ok_and(|text: Cow<'_, str>| text == entity_type);
        members(body, "id").into_iter().any(|id| members(id.get(), "entity_type").into_iter().any(is_it))
    }

    /// Returns the message for connections that did not ask to resume.
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

    /// Returns the message for connections that asked to resume: `{"offset":N,"event":...}`.
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

#[derive(Deserialize)]
struct WithId<'a> {
    #[serde(borrow)]
    id: Named<'a>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    entity_type: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
}

/// What the check of a body finds.
struct Outline {
    has_id: bool,
    /// Whether the body has one of [`RESERVED`] as its `type`. If it has several, any of them counts, because parsers
    /// differ in which one they use.
    reserved: bool,
}

impl Outline {
    fn read(body: &[u8]) -> Result<Self, PushError> {
        let text = std::str::from_utf8(body).map_err(|_| PushError::NotAnObject)?;
        serde_json::from_str(text).map_err(|_| PushError::NotAnObject)
    }
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
        let mut outline = Outline { has_id: false, reserved: false };
        while let Some(key) = map.next_key()? {
            match key {
                Key::Id => {
                    outline.has_id = true;
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Type => outline.reserved |= is_reserved(map.next_value::<&RawValue>()?),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(outline)
    }
}

/// Returns whether a value is one of [`RESERVED`], with or without escapes.
fn is_reserved(value: &RawValue) -> bool {
    // A longer text is none of them, even if each of its characters is an escape.
    let text = value.get();
    text.starts_with('"')
        && text.len() <= 6 * RESERVED[4].len() + 2
        && serde_json::from_str::<Cow<'_, str>>(text).is_ok_and(|text| RESERVED.contains(&text.as_bytes()))
}

/// A key that the check looks for, with or without escapes (`"\u0069d"` is `id`).
enum Key {
    Id,
    Type,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The key is read as bytes, because a key with a lone surrogate is valid JSON but not a text.
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
        Ok(match key {
            b"id" => Key::Id,
            b"type" => Key::Type,
            _ => Key::Other,
        })
    }
}
