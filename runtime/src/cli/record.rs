//! A JSON object in an answer of the gateway. Its fields are read one by one.
//!
//! Invariant: a field that is not asked for is not parsed. The data that clients wrote may be nested to any depth,
//! which a parser that builds a tree would refuse.
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// An object. It has no fields if the value is not an object.
#[derive(Debug, Default)]
pub(super) struct Record(BTreeMap<String, Box<RawValue>>);

/// Returns a record for each value.
pub(super) fn records(values: &[Box<RawValue>]) -> Vec<Record> {
    values.iter().map(|value| Record::of(value)).collect()
}

impl Record {
    pub(super) fn of(value: &RawValue) -> Self {
        Self(serde_json::from_str(value.get()).unwrap_or_default())
    }

    /// Returns a field as it was written, or `null` if it is missing.
    pub(super) fn raw(&self, field: &str) -> &str {
        self.0.get(field).map_or("null", |value| value.get())
    }

    pub(super) fn number(&self, field: &str) -> Option<i64> {
        self.parsed(field)
    }

    pub(super) fn text(&self, field: &str) -> Option<String> {
        self.parsed(field)
    }

    pub(super) fn list(&self, field: &str) -> Vec<Box<RawValue>> {
        self.parsed(field).unwrap_or_default()
    }

    /// Returns a field that is an object.
    pub(super) fn record(&self, field: &str) -> Self {
        self.0.get(field).map_or_else(Self::default, |value| Self::of(value))
    }

    /// Returns a field as a table shows it.
    pub(super) fn cell(&self, field: &str) -> String {
        match self.parsed::<Option<String>>(field) {
            Some(text) => text.unwrap_or_default(),
            None => self.raw(field).to_owned(),
        }
    }

    fn parsed<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        serde_json::from_str(self.raw(field)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_whatever_stands_beside_it() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let text = format!(r#"{{"id":7,"name":"é\"","seat":null,"state":{{"a":{deep}}},"id_of":{{"n":1.50}}}}"#);
        let record = Record::of(&RawValue::from_string(text).unwrap());
        assert_eq!((record.number("id"), record.text("name").as_deref()), (Some(7), Some("é\"")));
        assert_eq!(["id", "name", "seat", "none"].map(|field| record.cell(field)), ["7", "é\"", "", ""]);
        assert_eq!((record.record("id_of").raw("n"), record.list("seat").len()), ("1.50", 0));
        assert_eq!(record.raw("state"), format!(r#"{{"a":{deep}}}"#));
        assert_eq!(Record::of(&RawValue::from_string("[1]".to_owned()).unwrap()).cell("id"), "");
    }
}
