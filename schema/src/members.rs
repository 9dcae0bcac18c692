//! Finds the values that a JSON object has under one name.
//!
//! Invariant: if a name occurs several times, every value is found, because parsers differ in which value they use. A
//! name is found with or without escapes.
use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Returns all values under this name, or none if the text is not a JSON object.
pub(crate) fn members<'a>(object: &'a str, name: &str) -> Vec<&'a RawValue> {
    let mut json = serde_json::Deserializer::from_str(object);
    json.deserialize_map(Members(name)).unwrap_or_default()
}

struct Members<'n>(&'n str);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(found) = map.next_key_seed(Is(self.0))? {
            match found {
                true => values.push(map.next_value()?),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(values)
    }
}

/// Returns whether a key is this name. The key is read as bytes, because a key with a lone surrogate is JSON but not a
/// text.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<bool, E> {
        Ok(key == self.0.as_bytes())
    }
}
