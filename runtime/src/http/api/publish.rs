//! `POST publish` publishes events of other services, one event or many at once.
//!
//! Invariant: a published event has a valid subject, a JSON object as its body, and headers that every node reads in
//! the same way. Its entity type is never `agent`, because only the gateway says which agents are present. Its message
//! id is never one of the gateway's own events, because the stream would then drop those events as duplicates.
use std::borrow::Cow;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use rollcall_schema::{
    EntityEvent, LessonId, MessageId, Offset, Push, PushError, RoomId, Subject, entity::AGENT, header,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::publish_headers::{OwnHeaders, passed_on};
use crate::http::{
    admin::Admin,
    call::{Call, object},
    reply::{ErrorBody, HttpError, Reply, json},
};
use rollcall_bus::{Fence, Publication, PublishError};

/// The maximum number of events in one request.
const MAX_EVENTS: usize = 1000;
/// The largest request with several events, in bytes. A single event may be larger if the configuration permits it.
const MAX_BATCH: usize = 4 << 20;
/// The number of bytes for the JSON around an event's body.
const ENVELOPE: usize = 1024;
/// An event that was stored, with its offset in the stream.
#[derive(Serialize)]
struct Accepted {
    offset: Offset,
}

/// The outcome of each event, in the order of the request.
#[derive(Serialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Stored { status: u16, offset: Offset },
    Refused(ErrorBody),
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    headers: OwnHeaders,
}

/// Returns the size of the largest request, in bytes.
pub(super) fn max_body(admin: &Admin) -> usize {
    MAX_BATCH.max(admin.max_event + ENVELOPE)
}

/// Publishes one event, or each event of an array.
pub(super) async fn publish(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    // If a header of the request is invalid, the whole request is refused, not each of its events.
    passed_on(call.headers, &OwnHeaders::default())?;
    if call.body.trim_ascii_start().first() == Some(&b'[') {
        return publish_several(admin, call).await;
    }
    let publication = read(call.headers, &call.body, admin.max_event)?;
    call.audit.of(publication.subject.to_string());
    let outcome = store(admin, vec![Ok(publication)]).await.pop();
    let offset = outcome.unwrap_or_else(|| Err(HttpError::away(admin.bus.name())))?;
    Ok(json(StatusCode::ACCEPTED, &Accepted { offset }))
}

async fn publish_several(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let events: Vec<&RawValue> = serde_json::from_slice(&call.body)
        .map_err(|error| HttpError::bad(format!("not an array of events: {error}")))?;
    if events.len() > MAX_EVENTS {
        return Err(HttpError::bad(format!("{} events: send at most {MAX_EVENTS} at once", events.len())));
    }
    let events: Vec<_> =
        events.into_iter().map(|event| read(call.headers, event.get().as_bytes(), admin.max_event)).collect();
    let valid = events.iter().filter(|event| event.is_ok()).count();
    if valid > 0 {
        call.audit.of(format!("{valid} events"));
    }
    let outcome = |stored| match stored {
        Ok(offset) => Outcome::Stored { status: StatusCode::ACCEPTED.as_u16(), offset },
        Err(refusal) => Outcome::Refused(HttpError::body(&refusal)),
    };
    let results = store(admin, events).await.into_iter().map(outcome).collect();
    Ok(json(StatusCode::OK, &Outcomes { results }))
}

/// Stores the valid events at once and in their order.
async fn store(admin: &Admin, mut events: Vec<Result<Publication, HttpError>>) -> Vec<Result<Offset, HttpError>> {
    let missing = missing_lessons(admin, &events).await;
    for event in &mut events {
        if let Ok(Publication { subject: Subject { room: RoomId::Lesson(lesson), .. }, .. }) = &*event
            && missing.contains(lesson)
        {
            let detail = format!("there is no lesson {lesson}: load it, or correct the subject");
            *event = Err(HttpError::new(StatusCode::NOT_FOUND, detail));
        }
    }
    let mut batch = Vec::with_capacity(events.len());
    let places: Vec<Result<(), HttpError>> =
        events.into_iter().map(|event| event.map(|publication| batch.push(publication))).collect();
    let mut stored = if batch.is_empty() { Vec::new() } else { admin.publisher.publish_all(batch).await }.into_iter();
    let outcome = |event: Result<(), HttpError>| {
        event?;
        match stored.next() {
            Some(Ok(offset)) => Ok(offset),
            Some(Err(PublishError::Refused(why))) => {
                tracing::warn!(why, "an event of POST publish is refused");
                Err(HttpError::bad("the stream does not take this event: make it smaller"))
            }
            _ => Err(HttpError::away(admin.bus.name())),
        }
    };
    places.into_iter().map(outcome).collect()
}

/// Returns the lessons that do not exist. SQL is not asked about a lesson that has members on this node. While SQL is
/// away, every lesson counts as existing.
async fn missing_lessons(admin: &Admin, events: &[Result<Publication, HttpError>]) -> Vec<LessonId> {
    let lesson = |event: &Result<Publication, HttpError>| match &event.as_ref().ok()?.subject.room {
        RoomId::Lesson(lesson) => Some(lesson.clone()),
        RoomId::Classroom(_) => None,
    };
    let mut lessons: Vec<LessonId> = events.iter().filter_map(lesson).collect();
    lessons.sort_unstable();
    lessons.dedup();
    lessons.retain(|lesson| !admin.rooms.has_members(&RoomId::Lesson(lesson.clone())));
    if lessons.is_empty() {
        return lessons;
    }
    match admin.store.missing_lessons(&lessons).await {
        Ok(missing) => missing,
        Err(error) => {
            tracing::debug!(%error, "events are published to lessons that may not exist");
            Vec::new()
        }
    }
}

/// Parses an event whose body may have at most `max` bytes. Its own headers override those of the request.
fn read(headers: &HeaderMap, event: &[u8], max: usize) -> Result<Publication, HttpError> {
    let Event { subject, body, id, headers: own } = object(event, "{\"subject\": TEXT, \"body\": {...}}")?;
    let subject = Subject::parse(&subject)
        .map_err(|_| HttpError::bad("the subject must be classroom.UUID.ENTITY or lesson.ID.ENTITY"))?;
    let passed = passed_on(headers, &own)?;
    let is_agent_event = |(name, value): &(&str, String)| *name == header::ENTITY_EVENT_TYPE && value == AGENT;
    let body = body.get();
    if subject.entity() == AGENT || passed.iter().any(is_agent_event) || Push::names_entity(body, AGENT) {
        return Err(HttpError::bad(format!("only the gateway publishes events of the entity type {AGENT}")));
    }
    let message_id = id.map(|id| message_id(&id)).transpose()?;
    if !body.starts_with('{') {
        return Err(HttpError::bad("the event's body must be a JSON object"));
    }
    if body.len() > max {
        let detail = format!("the event's body is larger than {max} bytes");
        return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let has = |name| passed.iter().any(|(passed, _)| *passed == name);
    let described = [header::ENTITY_EVENT_TYPE, header::ENTITY_EVENT_OPERATION, header::ENTITY_EVENT_SEQUENCE_ID];
    let entity = EntityEvent { entity_type: "", operation: "", sequence_id: 0 };
    let entity = described.into_iter().all(has).then_some(entity);
    if Push::parse(body.as_bytes(), entity) == Err(PushError::ReservedType) {
        return Err(HttpError::bad("the event's type must not be that of one of the gateway's own messages"));
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    Ok(Publication { subject, message_id, headers: passed, body, fence: Fence::None })
}

fn message_id(id: &str) -> Result<String, HttpError> {
    let rule = "1 to 128 printable ASCII characters without space, not beginning with agent.";
    let id = MessageId::parse(id).map_err(|_| HttpError::bad(format!("the event's id must be {rule}")))?;
    Ok(id.as_str().to_owned())
}
