//! The headers of events that other services publish: headers of the request, and headers beside an event's body.
//!
//! Invariant: a header that is given twice, in any spelling, is refused, because nodes could read the less strict of
//! the two.
use std::fmt;

use hyper::HeaderMap;
use rollcall_schema::{AgentId, TraceParent, header};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::http::reply::HttpError;

/// A header's name, its check, and the rule that the check enforces.
type Header = (&'static str, fn(&str) -> bool, &'static str);

/// The headers that are passed on with the event.
const HEADERS: [Header; 6] = [
    (header::SENDER_AGENT_ID, agent, "an agent's id"),
    (header::RECEIVER_AGENT_ID, agent, "an agent's id"),
    (header::IS_INTERNAL, |text| matches!(text, "true" | "false"), "true or false"),
    (header::ENTITY_EVENT_TYPE, word, "1 to 64 of A-Z a-z 0-9 _ - ."),
    (header::ENTITY_EVENT_OPERATION, word, "1 to 64 of A-Z a-z 0-9 _ - ."),
    (header::ENTITY_EVENT_SEQUENCE_ID, |text| text.parse::<i64>().is_ok(), "a whole number"),
];

fn agent(text: &str) -> bool {
    AgentId::parse(text).is_ok()
}

fn word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// The headers beside an event's body, as they were written.
#[derive(Default)]
pub(super) struct OwnHeaders(Vec<(String, String)>);

impl<'de> Deserialize<'de> for OwnHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OwnHeadersVisitor)
    }
}

struct OwnHeadersVisitor;

impl<'de> Visitor<'de> for OwnHeadersVisitor {
    type Value = OwnHeaders;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OwnHeaders, A::Error> {
        let mut headers = Vec::new();
        while let Some(header) = map.next_entry()? {
            headers.push(header);
        }
        Ok(OwnHeaders(headers))
    }
}

/// Returns the headers of an event after checking them. `Is-Internal` is always among them.
pub(super) fn passed_on(
    request: &HeaderMap,
    OwnHeaders(own): &OwnHeaders,
) -> Result<Vec<(&'static str, String)>, HttpError> {
    let is_trace = |name: &str| name.eq_ignore_ascii_case(header::TRACEPARENT);
    let known = |name: &str| is_trace(name) || HEADERS.iter().any(|(known, ..)| name.eq_ignore_ascii_case(known));
    if let Some((unknown, _)) = own.iter().find(|(name, _)| !known(name)) {
        let names = HEADERS.map(|(name, ..)| name).join(", ");
        return Err(HttpError::bad(format!("the header {unknown:?} is not one of {names}")));
    }
    let mut passed = Vec::new();
    for (name, check, rule) in HEADERS {
        let faulty = || HttpError::bad(format!("the header {name} must be {rule}"));
        let mut own = own.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        let mut of_request = request.get_all(name).iter();
        let value = match (own.next(), of_request.next()) {
            (Some(value), _) => value,
            (None, Some(value)) => value.to_str().map_err(|_| faulty())?,
            (None, None) if name == header::IS_INTERNAL => "false",
            (None, None) => continue,
        };
        if own.next().is_some() || of_request.next().is_some() {
            return Err(HttpError::bad(format!("the header {name} is given twice")));
        }
        if !check(value) {
            return Err(faulty());
        }
        passed.push((name, value.to_owned()));
    }
    // The standard of the W3C asks to ignore a trace header that cannot be read.
    let own = own.iter().find(|(name, _)| is_trace(name)).map(|(_, value)| value.as_str());
    let trace = own.or_else(|| request.get(header::TRACEPARENT)?.to_str().ok()).and_then(TraceParent::parse);
    passed.extend(trace.map(|trace| (header::TRACEPARENT, trace.to_string())));
    Ok(passed)
}
