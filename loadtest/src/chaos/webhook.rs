//! The webhook's receiver: its faults in a seed, and what it must have at the end.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rollcall_loadtest::GatewayOptions;
use rollcall_loadtest::webhook::{Mood, Receiver, SECRET, Taken};

use super::journal::{UPDATED, key};
use super::past::Past;
use super::random::Random;
use super::setting::STORM;
use super::stream::{Record, Stored};

/// The number of the receiver's faults in one seed.
const TROUBLES: usize = 3;
/// The receiver has random numbers of its own, so that the other faults of a seed stay the same.
const OWN_NUMBERS: u64 = 0x7765_6268_6f6f_6b73;

/// Returns the options of a gateway that posts to the receiver.
pub(super) fn posting_to(receiver: &Receiver, options: GatewayOptions) -> GatewayOptions {
    options
        .env("ROLLCALL_WEBHOOK_URL", receiver.url())
        .env("ROLLCALL_WEBHOOK_SECRET", SECRET)
        .env("ROLLCALL_WEBHOOK_TIMEOUT", "700ms")
        .env("ROLLCALL_WEBHOOK_MAX_PAUSE", "200ms")
}

/// Causes a seed's faults of the receiver, one after the other. Afterwards the receiver takes everything.
pub(super) fn trouble(receiver: &Receiver, seed: u64, classrooms: &[String], start: Instant) -> io::Result<()> {
    let mut random = Random::new(seed ^ OWN_NUMBERS);
    for _ in 0..TROUBLES {
        thread::sleep(random.millis(0..STORM / TROUBLES));
        let classroom = classrooms[random.within(0..classrooms.len())].clone();
        let lasts = random.millis(100..1200);
        match random.within(0..5) {
            0 => {
                receiver.kill();
                thread::sleep(lasts);
                receiver.restart()?;
                continue;
            }
            1 => receiver.set(Mood::Hangs),
            2 => receiver.set(Mood::Answers(500)),
            3 => receiver.set(Mood::Answers(301)),
            _ => receiver.set(Mood::AnswersClassroom(500, classroom)),
        }
        thread::sleep(lasts);
        receiver.set(Mood::Takes);
    }
    // The other faults of the seed may still go on.
    thread::sleep((start + Duration::from_millis(STORM as u64)).saturating_duration_since(Instant::now()));
    Ok(())
}

/// Returns what the receiver lacks, or has too much, of these classrooms' events. It may lack events of a deleted
/// stream that no node had read before.
pub(super) fn faults(
    ledger: &[Taken],
    stream: Option<&Record>,
    history: &[Past],
    classrooms: &[String],
) -> Vec<String> {
    let ledger: Vec<_> = ledger.iter().filter(|taken| classrooms.contains(&taken.classroom)).collect();
    match stream {
        Some(stream) => of_stream(&ledger, stream),
        None => of_history(&ledger, history),
    }
}

/// The classroom and the key of an event, by offset.
type ByOffset = BTreeMap<u64, (String, String)>;

fn of_stream(ledger: &[&Taken], stream: &Record) -> Vec<String> {
    let mut epochs: Vec<ByOffset> = stream.epochs.iter().map(|_| ByOffset::new()).collect();
    let is_presence = |stored: &&Stored| stored.session.is_some() || stored.key.starts_with(UPDATED);
    for stored in stream.messages.iter().filter(is_presence) {
        let classroom = stored.room.trim_start_matches("classroom.").to_owned();
        epochs[stored.epoch].insert(stored.offset, (classroom, stored.key.clone()));
    }
    let mut faults = Vec::new();
    let mut got: Vec<BTreeMap<u64, ()>> = stream.epochs.iter().map(|_| BTreeMap::new()).collect();
    for taken in ledger {
        let posted = key(&taken.event);
        let Some(epoch) = stream.epochs.iter().position(|epoch| *epoch == taken.epoch) else {
            faults.push(format!("the webhook posted {posted} of a stream that never was: {}", taken.epoch));
            continue;
        };
        let wanted = epochs[epoch].get(&taken.offset);
        if wanted.is_none_or(|(classroom, key)| *classroom != taken.classroom || *key != posted) {
            faults.push(format!("the webhook posted {posted} at {}, where the stream has {wanted:?}", taken.offset));
        }
        got[epoch].insert(taken.offset, ());
    }
    // The receiver's ledger ignores an offset that is not above the last one of its classroom, so an event that came
    // too late is missing here.
    if let Some((wanted, got)) = epochs.last().zip(got.last()) {
        for (offset, (classroom, key)) in wanted.iter().filter(|(offset, _)| !got.contains_key(offset)) {
            faults.push(format!("the webhook never posted {key} of {classroom} at {offset}, or too late"));
        }
    }
    faults
}

/// Checks the events without a stream. Then only the order of one session's events is known.
fn of_history(ledger: &[&Taken], history: &[Past]) -> Vec<String> {
    let mut got: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for taken in ledger {
        let id = &taken.event["id"];
        let session = format!("{} of {}", id["sequence_id"], taken.classroom);
        got.entry(session).or_default().push(id["operation"].as_str().unwrap_or_default());
    }
    let mut faults = Vec::new();
    for Past { session, classroom, .. } in history {
        let events = got.remove(&format!("{session} of {classroom}")).unwrap_or_default();
        let events: Vec<_> = events.into_iter().filter(|operation| *operation != "updated").collect();
        if events != ["entered", "left"] {
            faults.push(format!("the webhook posted {events:?} of session {session}"));
        }
    }
    faults.extend(got.keys().map(|session| format!("the webhook posted events of no session: {session}")));
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(epoch: &str, offset: u64, session: i64, operation: &str) -> Taken {
        let event = json!({"id": {"entity_type": "agent", "operation": operation, "sequence_id": session}});
        Taken { epoch: epoch.to_owned(), offset, classroom: "c".to_owned(), reason: None, event }
    }

    fn stored(epoch: usize, offset: u64, session: i64) -> Stored {
        Stored {
            epoch,
            offset,
            room: "classroom.c".to_owned(),
            key: format!("agent.entered {session}"),
            session: Some((session, true)),
            ..Stored::default()
        }
    }

    #[test]
    fn what_is_missing_or_strange_is_found() {
        let record = Record {
            messages: vec![stored(0, 1, 1), stored(0, 2, 2), stored(1, 1, 3), stored(1, 4, 4)],
            epochs: vec!["e".to_owned(), "f".to_owned()],
        };
        let wrong = |ledger: &[Taken]| faults(ledger, Some(&record), &[], &["c".to_owned()]).len();
        let all = [taken("e", 1, 1, "entered"), taken("f", 1, 3, "entered"), taken("f", 4, 4, "entered")];
        assert_eq!(wrong(&all), 0, "the first stream is gone");
        assert_eq!((wrong(&all[..2]), wrong(&[])), (1, 2));
        let strange = taken("f", 4, 9, "entered");
        assert_eq!(wrong(&[all[0].clone(), all[1].clone(), strange]), 1);
        assert_eq!(wrong(&[&all[..], &[taken("g", 1, 1, "entered")]].concat()), 1);
    }

    #[test]
    fn without_a_stream_each_session_is_told_once() {
        let history = [Past { session: 7, classroom: "c".to_owned(), ..Past::default() }];
        let wrong = |operations: &[&str]| {
            let ledger: Vec<_> =
                (1..).zip(operations).map(|(offset, operation)| taken("e", offset, 7, operation)).collect();
            faults(&ledger, None, &history, &["c".to_owned()]).len()
        };
        assert_eq!((wrong(&["entered", "left"]), wrong(&["entered", "updated", "left"])), (0, 0));
        assert_eq!((wrong(&["entered"]), wrong(&["left", "entered"]), wrong(&["entered", "left", "left"])), (1, 1, 1));
    }
}
