//! JSON objects: how one is read, and the small ones that the gateway passes on without reading their fields, a token's
//! `info` and an agent's `state` (PROTOCOL 9).
//!
//! Invariant: a [`JsonObject`] is one object of at most [`MAX_OBJECT`] bytes, and is passed on byte for byte.
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

use crate::id::{IdError, OBJECT_RULE};

/// Reads one JSON object. Serde alone would also accept an array of the fields' values.
///
/// # Errors
/// Returns an error if the text is not an object of this form.
pub fn read_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(serde_json::Error::custom("not an object"));
    }
    serde_json::from_str(text)
}

/// The longest object, in bytes of its text.
pub const MAX_OBJECT: usize = 1024;

/// One JSON object of at most [`MAX_OBJECT`] bytes.
#[derive(Clone)]
pub struct JsonObject(Box<RawValue>);

impl JsonObject {
    /// Checks that a text is such an object.
    ///
    /// # Errors
    /// Returns an [`IdError`] if the text is too long or not a JSON object.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        // A text that is too long is not parsed.
        if text.len() > MAX_OBJECT {
            return Err(IdError("object"));
        }
        let raw = RawValue::from_string(text.to_owned()).map_err(|_| IdError("object"))?;
        Self::check(raw).ok_or(IdError("object"))
    }

    fn check(raw: Box<RawValue>) -> Option<Self> {
        (raw.get().len() <= MAX_OBJECT && raw.get().starts_with('{')).then_some(Self(raw))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for JsonObject {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JsonObject {}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for JsonObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text is borrowed until its length is known, so that a text that is too long is not copied.
        let raw = <&RawValue>::deserialize(deserializer)?;
        let object = (raw.get().len() <= MAX_OBJECT).then(|| Self::check(raw.to_owned())).flatten();
        object.ok_or_else(|| D::Error::custom(format_args!("not {OBJECT_RULE}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_kept_as_it_was_written() {
        let text = r#"{ "hand" : true, "a":[1.0,{"b":"\u0000"}] }"#;
        let object = JsonObject::parse(text).expect("an object");
        assert_eq!(object.as_str(), text);
        assert_eq!(serde_json::to_string(&object).expect("JSON"), text);
        assert_eq!(serde_json::from_str::<JsonObject>(text).expect("an object"), object);
    }

    #[test]
    fn what_is_no_object_or_too_long_is_refused() {
        let longest = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_OBJECT - 8));
        assert_eq!(longest.len(), MAX_OBJECT);
        assert!(JsonObject::parse(&longest).is_ok());
        let long = longest.replacen('x', "xx", 1);
        for text in ["", "null", "[]", "\"{}\"", "{", "{}{}", "{\"a\":\u{0}}", &long] {
            assert!(JsonObject::parse(text).is_err(), "{text}");
            assert!(serde_json::from_str::<JsonObject>(text).is_err(), "{text}");
        }
    }
}
