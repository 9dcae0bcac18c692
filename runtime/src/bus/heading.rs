//! From a message's subject and headers to an [`Incoming`], or the reason why it is dropped.
//!
//! Invariant: whatever other services publish, the outcome is an event for a room or a count, never an error.
use std::time::Duration;

use bytes::Bytes;
use rollcall_schema::{AgentId, Offset, Subject, header};

use super::Incoming;
use crate::names;

/// A forwarded body may be this long (PROTOCOL 2).
const MAX_BODY: usize = 128 * 1024;

/// Reads a message. Of a header that comes twice the last counts; a sender that is no agent spares nobody.
pub(super) fn incoming<'a>(
    subject: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    offset: Offset,
    age: Option<Duration>,
    body: Bytes,
) -> Option<Incoming> {
    let read = read(subject, headers, offset, age, body);
    read.inspect_err(|reason| metrics::counter!(names::DROPPED, "reason" => *reason).increment(1)).ok()
}

fn read<'a>(
    subject: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    offset: Offset,
    age: Option<Duration>,
    body: Bytes,
) -> Result<Incoming, &'static str> {
    let room = Subject::parse(subject).map_err(|_| "subject")?.room;
    if body.len() > MAX_BODY {
        return Err("too_large");
    }
    let mut event = Incoming { room, offset, sender: None, receiver: None, internal: false, entity: None, age, body };
    let (mut entity_type, mut operation, mut sequence_id) = (None, None, None);
    for (name, value) in headers {
        match name {
            header::SENDER_AGENT_ID => event.sender = AgentId::parse(value).ok(),
            // Nobody but the named may see it, so it must not go to all because the name is broken.
            header::RECEIVER_AGENT_ID => event.receiver = Some(AgentId::parse(value).map_err(|_| "header")?),
            header::IS_INTERNAL => event.internal = value == "true",
            header::ENTITY_EVENT_TYPE => entity_type = Some(value),
            header::ENTITY_EVENT_OPERATION => operation = Some(value),
            header::ENTITY_EVENT_SEQUENCE_ID => sequence_id = Some(value.parse().map_err(|_| "header")?),
            _ => {}
        }
    }
    if let (Some(entity_type), Some(operation), Some(sequence_id)) = (entity_type, operation, sequence_id) {
        event.entity = Some((entity_type.to_owned(), operation.to_owned(), sequence_id));
    }
    Ok(event)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SUBJECT: &str = "lesson.algebra-1.note";

    fn outcome(subject: &str, headers: &[(&str, &str)], body: usize) -> Result<Incoming, &'static str> {
        read(subject, headers.iter().copied(), Offset(7), None, vec![b'x'; body].into())
    }

    #[test]
    fn the_headers_of_the_contract_are_read() {
        let headers = [
            ("Sender-Agent-Id", "web.alice.example.org"),
            ("Receiver-Agent-Id", "web.bob.example.org"),
            ("Is-Internal", "true"),
            ("Entity-Event-Type", "note"),
            ("Entity-Event-Operation", "made"),
            ("Entity-Event-Sequence-Id", "12"),
            ("Else", "what"),
        ];
        let event = outcome(SUBJECT, &headers, 2).unwrap();
        assert_eq!(event.sender.unwrap().as_str(), "web.alice.example.org");
        assert_eq!(event.receiver.unwrap().as_str(), "web.bob.example.org");
        assert!(event.internal);
        assert_eq!(event.entity, Some(("note".into(), "made".into(), 12)));
        assert_eq!((event.offset, event.room.to_string().as_str()), (Offset(7), "lesson.algebra-1"));
    }

    #[test]
    fn two_of_the_trio_are_none() {
        let event = outcome(SUBJECT, &[("Entity-Event-Type", "note"), ("Entity-Event-Sequence-Id", "1")], 0).unwrap();
        assert_eq!(event.entity, None);
    }

    #[test]
    fn what_cannot_be_read_is_dropped_with_its_reason() {
        for subject in ["lesson.algebra-1", "lesson.a.b.c", "classroom.x.agent", "", "lesson.a.b d", "lesson.ä.note"] {
            assert_eq!(outcome(subject, &[], 0).unwrap_err(), "subject", "{subject}");
        }
        assert_eq!(outcome(SUBJECT, &[("Receiver-Agent-Id", "*")], 0).unwrap_err(), "header");
        assert_eq!(outcome(SUBJECT, &[("Entity-Event-Sequence-Id", "9e9")], 0).unwrap_err(), "header");
        assert_eq!(outcome(SUBJECT, &[], MAX_BODY + 1).unwrap_err(), "too_large");
        assert!(outcome(SUBJECT, &[("Sender-Agent-Id", "a service")], MAX_BODY).unwrap().sender.is_none());
    }
}
