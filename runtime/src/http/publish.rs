//! `POST /api/v1/publish`: parses a request into a publication.
//!
//! Invariant: what is published has a subject of ours, a JSON object as its body, and headers that every node reads
//! alike. It is never of the entity type `agent`: only the gateway says who is present.
use std::borrow::Cow;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use rollcall_schema::{AgentId, EntityEvent, Offset, Push, PushError, Subject, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::reply::HttpError;
use rollcall_bus::{Fence, Publication};

/// The answer: the event's offset in the stream.
#[derive(Serialize)]
pub(super) struct Accepted {
    pub(super) offset: Offset,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The entity type of presence events.
const AGENT: &str = "agent";

/// A header's name, its check, and what the check asks for.
type Header = (&'static str, fn(&str) -> bool, &'static str);

/// The headers that are passed on with the event.
const HEADERS: [Header; 6] = [
    ("Sender-Agent-Id", agent, "an agent's id"),
    ("Receiver-Agent-Id", agent, "an agent's id"),
    ("Is-Internal", |text| matches!(text, "true" | "false"), "true or false"),
    ("Entity-Event-Type", word, "1 to 64 of A-Z a-z 0-9 _ - ."),
    ("Entity-Event-Operation", word, "1 to 64 of A-Z a-z 0-9 _ - ."),
    ("Entity-Event-Sequence-Id", |text| text.parse::<i64>().is_ok(), "a whole number"),
];

fn agent(text: &str) -> bool {
    AgentId::parse(text).is_ok()
}

fn word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// Parses a request whose event may have `max` bytes.
pub(super) fn read(headers: &HeaderMap, body: &[u8], max: usize) -> Result<Publication, HttpError> {
    let request: Request<'_> = serde_json::from_slice(body)
        .map_err(|error| HttpError::bad(format!("not {{\"subject\": TEXT, \"body\": {{...}}}}: {error}")))?;
    let subject = Subject::parse(&request.subject)
        .map_err(|_| HttpError::bad("the subject must be classroom.UUID.ENTITY or lesson.ID.ENTITY"))?;
    let is_agent = |entity: &[u8]| entity == AGENT.as_bytes();
    if is_agent(subject.entity().as_bytes())
        || headers.get_all(header::ENTITY_EVENT_TYPE).iter().any(|value| is_agent(value.as_bytes()))
    {
        return Err(HttpError::bad(format!("only the gateway publishes events of the entity type {AGENT}")));
    }
    let body = request.body.get();
    if !body.starts_with('{') {
        return Err(HttpError::bad("the event's body must be a JSON object"));
    }
    if body.len() > max {
        let detail = format!("the event's body is larger than {max} bytes");
        return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let mut passed = Vec::new();
    for (name, check, rule) in HEADERS {
        let Some(value) = headers.get(name) else { continue };
        let value = value.to_str().ok().filter(|value| check(value));
        let value = value.ok_or_else(|| HttpError::bad(format!("the header {name} must be {rule}")))?;
        passed.push((name, value.to_owned()));
    }
    let has = |name| passed.iter().any(|(passed, _)| *passed == name);
    let described = [header::ENTITY_EVENT_TYPE, header::ENTITY_EVENT_OPERATION, header::ENTITY_EVENT_SEQUENCE_ID];
    let entity = EntityEvent { entity_type: "", operation: "", sequence_id: 0 };
    let entity = described.into_iter().all(has).then_some(entity);
    if Push::parse(body.as_bytes(), entity) == Err(PushError::ReservedType) {
        return Err(HttpError::bad("the event's type must not be that of one of the gateway's own messages"));
    }
    if !has(header::IS_INTERNAL) {
        passed.push((header::IS_INTERNAL, "false".to_owned()));
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    Ok(Publication { subject, message_id: None, headers: passed, body, fence: Fence::None })
}
