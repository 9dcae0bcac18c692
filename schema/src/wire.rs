//! Encodes this crate's messages.
use std::time::Duration;

use serde::Serialize;

/// Returns the compact JSON of a plain struct of this crate.
pub(crate) fn json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("structs of texts and numbers can be written as JSON")
}

/// Returns the JSON as a text.
pub(crate) fn text<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).expect("structs of texts and numbers can be written as JSON")
}

/// Returns a duration in whole milliseconds, as in hints to clients.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
