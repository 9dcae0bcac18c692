//! Reads a message's subject and headers into an [`Incoming`], or into the reason why it is dropped.
//!
//! Invariant: whatever other services publish, the result is an event for a room or a reason to count, never an error.
use std::time::Duration;

use bytes::Bytes;
use rollcall_schema::{AgentId, Offset, Subject, TraceParent, header};

use super::Incoming;
use rollcall_base::names;

/// Reads a message. Header names are compared without case. An event is dropped if a value cannot be read, or if a
/// header has two different values, because a guess could show the event to a client that must not see it.
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

/// The headers that are read, in the order of [`read`]'s values.
const NAMES: [&str; 6] = [
    header::SENDER_AGENT_ID,
    header::RECEIVER_AGENT_ID,
    header::IS_INTERNAL,
    header::ENTITY_EVENT_TYPE,
    header::ENTITY_EVENT_OPERATION,
    header::ENTITY_EVENT_SEQUENCE_ID,
];

fn read<'a>(
    subject: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    offset: Offset,
    age: Option<Duration>,
    body: Bytes,
) -> Result<Incoming, &'static str> {
    let subject = Subject::parse(subject).map_err(|_| "subject")?;
    let mut values: [Option<&str>; NAMES.len()] = Default::default();
    let mut trace = None;
    for (name, value) in headers {
        if header::TRACEPARENT.eq_ignore_ascii_case(name) {
            // A faulty `traceparent` begins no trace, and does not drop the event.
            trace = TraceParent::parse(value).map(Box::new);
            continue;
        }
        let Some(index) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else { continue };
        if values[index].replace(value).is_some_and(|other| other != value) {
            return Err("header");
        }
    }
    let [sender, receiver, internal, entity_type, operation, sequence_id] = values;
    let agent = |value: Option<&str>| value.map(AgentId::parse).transpose().map_err(|_| "header");
    let internal = match internal {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err("header"),
    };
    let sequence_id = sequence_id.map(str::parse).transpose().map_err(|_| "header")?;
    let entity = match (entity_type, operation, sequence_id) {
        (Some(entity_type), Some(operation), Some(sequence_id)) => {
            Some((entity_type.to_owned(), operation.to_owned(), sequence_id))
        }
        _ => None,
    };
    let (sender, receiver) = (agent(sender)?, agent(receiver)?);
    let topic = subject.entity().into();
    Ok(Incoming { room: subject.room, topic, offset, sender, receiver, internal, entity, trace, age, body })
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
            ("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("Else", "what"),
        ];
        let event = outcome(SUBJECT, &headers, 2).unwrap();
        assert_eq!(event.sender.unwrap().as_str(), "web.alice.example.org");
        assert_eq!(event.receiver.unwrap().as_str(), "web.bob.example.org");
        assert!(event.internal);
        assert_eq!(event.trace.unwrap().span, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(outcome(SUBJECT, &[("traceparent", "nonsense")], 2).unwrap().trace, None);
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
        let unreadable = [
            ("Receiver-Agent-Id", "*"),
            ("Receiver-Agent-Id", ""),
            ("Sender-Agent-Id", "a service"),
            ("Entity-Event-Sequence-Id", "9e9"),
            ("Is-Internal", "True"),
            ("Is-Internal", "TRUE"),
            ("Is-Internal", "1"),
            ("Is-Internal", ""),
        ];
        for (name, value) in unreadable {
            for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(outcome(SUBJECT, &[(&name, value)], 0).unwrap_err(), "header", "{name}: {value}");
            }
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        for change in [str::to_lowercase, str::to_uppercase] {
            let headers = [("Receiver-Agent-Id", "web.bob.example.org"), ("Is-Internal", "true")];
            let headers = headers.map(|(name, value)| (change(name), value));
            let headers = headers.each_ref().map(|(name, value)| (name.as_str(), *value));
            let event = outcome(SUBJECT, &headers, 0).unwrap();
            assert_eq!((event.receiver.unwrap().as_str(), event.internal), ("web.bob.example.org", true));
        }
        assert!(!outcome(SUBJECT, &[("is-internal", "false")], 0).unwrap().internal);
    }

    #[test]
    fn a_header_that_says_two_things_says_neither() {
        let twice = |first, second| outcome(SUBJECT, &[("Is-Internal", first), ("is-internal", second)], 0);
        assert_eq!(twice("true", "false").unwrap_err(), "header");
        assert_eq!(twice("false", "true").unwrap_err(), "header");
        assert!(twice("true", "true").unwrap().internal);
    }

    #[test]
    fn a_classroom_is_the_same_in_either_case() {
        let lower = outcome("classroom.5c2f2c26-6b1c-4a4b-9d4e-2b9f5a3f7d10.note", &[], 0).unwrap();
        let upper = outcome("classroom.5C2F2C26-6B1C-4A4B-9D4E-2B9F5A3F7D10.note", &[], 0).unwrap();
        assert_eq!(lower.room, upper.room);
    }
}
