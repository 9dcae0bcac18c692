//! Tests against a model of the stream, which knows message ids, checks the expected sequence, and stores messages of
//! others in between.
use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};
use rollcall_base::since::Since;
use rollcall_schema::{Subject, header};
use tokio::sync::oneshot;

use super::{InFlight, Outcome, Request};
use crate::{Fence, Publication, PublishError};

const LIMIT: usize = 1_000_000;
const INBOX: &str = "_INBOX.x.";
const ROOMS: [&str; 2] =
    ["classroom.00000000-0000-4000-8000-000000000001.agent", "classroom.00000000-0000-4000-8000-000000000002.agent"];

/// An event: its room and its agent.
type Event = (usize, u8);

fn publication(id: usize, (room, agent): Event) -> Publication {
    Publication {
        subject: Subject::parse(ROOMS[room]).unwrap(),
        message_id: Some(id.to_string()),
        headers: vec![(header::SENDER_AGENT_ID, agent.to_string())],
        body: "{}".into(),
        fence: Fence::FirstTry,
    }
}

/// The messages of the stream: subject and id of each. An empty subject belongs to another service.
#[derive(Default)]
struct Stream {
    stored: Vec<(String, String)>,
}

struct Sent {
    number: u64,
    subject: String,
    id: String,
    expected: u64,
}

impl Stream {
    fn last(&self, subject: &str) -> u64 {
        self.stored.iter().rposition(|(stored, _)| stored == subject).map_or(0, |at| at as u64 + 1)
    }

    /// Stores a message, and returns the answer's body.
    fn store(&mut self, message: &Sent) -> String {
        if let Some(at) = self.stored.iter().position(|(_, id)| *id == message.id) {
            return format!(r#"{{"stream":"S","seq":{},"duplicate":true}}"#, at + 1);
        }
        let last = self.last(&message.subject);
        if last != message.expected {
            return format!(
                r#"{{"error":{{"code":400,"err_code":10071,"description":"wrong last sequence: {last}"}}}}"#
            );
        }
        self.stored.push((message.subject.clone(), message.id.clone()));
        format!(r#"{{"stream":"S","seq":{}}}"#, self.stored.len())
    }
}

fn parse(bytes: &[u8]) -> Vec<Sent> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let value = |message: &str, name: &str| {
        let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap().to_owned()
    };
    text.split("HPUB ")
        .skip(1)
        .map(|message| {
            let mut line = message.split(' ');
            let (subject, reply) = (line.next().unwrap().to_owned(), line.next().unwrap());
            Sent {
                number: reply.strip_prefix(INBOX).unwrap().parse().unwrap(),
                subject,
                id: value(message, header::NATS_MSG_ID),
                expected: value(message, "Nats-Expected-Last-Subject-Sequence").parse().unwrap(),
            }
        })
        .collect()
}

fn add(in_flight: &mut InFlight, batch: Vec<Publication>) -> oneshot::Receiver<Vec<Outcome>> {
    let (answer, answered) = oneshot::channel();
    in_flight.add(Request { batch, since: Since::now(), answer }, LIMIT);
    answered
}

/// Lets the stream handle all messages that are sent. Before each of them it stores this many messages of others.
/// Returns how often bytes were written.
fn settle(in_flight: &mut InFlight, stream: &mut Stream, others: &[usize]) -> usize {
    let mut writes = 0;
    let mut others = others.iter().copied();
    loop {
        let sent = parse(&in_flight.outgoing(INBOX));
        if sent.is_empty() {
            return writes;
        }
        writes += 1;
        let answers: Vec<_> = sent
            .iter()
            .map(|message| {
                for _ in 0..others.next().unwrap_or(0) {
                    stream.stored.push((String::new(), String::new()));
                }
                (message.number, stream.store(message))
            })
            .collect();
        for (number, body) in answers {
            in_flight.handle_answer(number, b"", body.as_bytes());
        }
    }
}

proptest! {
    #[test]
    fn whatever_others_store_each_event_is_stored_once_and_each_agents_in_order(
        events in vec((0..ROOMS.len(), 0..12u8), 1..200),
        others in vec(prop_oneof![4 => Just(0), 1 => 1..3usize], 0..600),
    ) {
        let (mut in_flight, mut stream) = (InFlight::new(), Stream::default());
        let batch = events.iter().enumerate().map(|(id, event)| publication(id, *event)).collect();
        let mut answered = add(&mut in_flight, batch);
        settle(&mut in_flight, &mut stream, &others);
        let results = answered.try_recv().unwrap();
        prop_assert!(results.iter().all(Result::is_ok), "{results:?}");
        let ids: Vec<usize> = stream.stored.iter().filter_map(|(_, id)| id.parse().ok()).collect();
        prop_assert_eq!(ids.len(), events.len());
        let mut by_agent: HashMap<Event, usize> = HashMap::new();
        for id in ids {
            prop_assert!(by_agent.insert(events[id], id).is_none_or(|before| before < id));
        }
    }
}

#[test]
fn a_large_room_alone_is_published_in_few_writes() {
    let (mut in_flight, mut stream) = (InFlight::new(), Stream::default());
    let mut answered = add(&mut in_flight, (0..250).map(|agent| publication(agent as usize, (0, agent))).collect());
    let writes = settle(&mut in_flight, &mut stream, &[]);
    assert!(answered.try_recv().unwrap().iter().all(Result::is_ok));
    assert!(writes < 20, "{writes} writes for 250 events");
}

#[test]
fn an_event_behind_anothers_fails_and_is_stored_when_it_is_handed_in_again() {
    let (mut in_flight, mut stream) = (InFlight::new(), Stream::default());
    let first = add(&mut in_flight, vec![publication(0, (0, 0))]);
    settle(&mut in_flight, &mut stream, &[]);
    drop(first);
    // Another node stores an event of the room.
    stream.stored.push((ROOMS[0].to_owned(), "others".to_owned()));
    let mut answered = add(&mut in_flight, (1..9).map(|agent| publication(agent as usize, (0, agent))).collect());
    settle(&mut in_flight, &mut stream, &[]);
    let results = answered.try_recv().unwrap();
    assert!(matches!(results[0], Err(PublishError::Behind)), "{results:?}");
    // The failed events are handed in again.
    let mut answered = add(&mut in_flight, (1..9).map(|agent| publication(agent as usize, (0, agent))).collect());
    settle(&mut in_flight, &mut stream, &[]);
    assert!(answered.try_recv().unwrap().iter().all(Result::is_ok));
    assert_eq!(stream.stored.len(), 10, "each once");
}

#[test]
fn an_event_that_was_sent_before_waits_for_those_ahead() {
    let (mut in_flight, mut stream) = (InFlight::new(), Stream::default());
    add(&mut in_flight, vec![publication(0, (0, 0))]);
    settle(&mut in_flight, &mut stream, &[]);
    let again = |agent: u8| Publication { fence: Fence::AfterLast, ..publication(agent as usize, (0, agent)) };
    let mut answered = add(&mut in_flight, (1..9).map(again).collect());
    assert_eq!(settle(&mut in_flight, &mut stream, &[]), 8);
    assert!(answered.try_recv().unwrap().iter().all(Result::is_ok));
}
