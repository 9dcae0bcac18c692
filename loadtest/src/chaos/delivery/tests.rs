use std::time::Instant;

use super::super::journal::{Resumption, Success};
use super::*;

fn note(offset: u64) -> Stored {
    Stored {
        offset,
        room: "classroom.c".to_owned(),
        key: format!("note {offset}"),
        message_id: format!("note:{offset}"),
        ..Stored::default()
    }
}

fn record(messages: impl Iterator<Item = Stored>) -> Record {
    Record { messages: messages.collect(), epochs: vec!["e".to_owned(), "f".to_owned()] }
}

/// Returns a connection that resumed after offset 1.
fn connection(offsets: &[u64]) -> Connection {
    let success = Success {
        session: 1,
        at: Instant::now(),
        sid: "sid".to_owned(),
        epoch: Some("e".to_owned()),
        offset: Some(1),
        recovered: Some(true),
    };
    let seen = offsets.iter().map(|offset| Seen { offset: Some(*offset), key: format!("note {offset}") });
    Connection {
        agent: "web.alice.example.org".to_owned(),
        classroom: "c".to_owned(),
        asked: Some(Resumption { epoch: "e".to_owned(), offset: 1, lesson: None }),
        success: Some(success),
        seen: seen.collect(),
        ..Connection::default()
    }
}

#[test]
fn without_a_stream_doubles_and_steps_back_are_found() {
    let wrong = |keys: &[&str]| {
        let seen = keys.iter().map(|key| Seen { offset: None, key: (*key).to_owned() }).collect();
        faults_alone(&[Connection { seen, ..connection(&[]) }]).len()
    };
    assert_eq!(wrong(&["agent.entered 1", "agent.left 1", "agent.entered 2"]), 0);
    assert_eq!(wrong(&["agent.entered 1", "agent.entered 1"]), 0);
    assert_eq!(wrong(&["agent.left 1", "agent.entered 1"]), 1);
    assert_eq!(wrong(&["agent.left 1", "agent.left 1"]), 1);
    assert_eq!(wrong(&["agent.updated 1 n5", "agent.updated 1 n7", "agent.left 1", "agent.updated 11 n8"]), 0);
    assert_eq!(wrong(&["agent.left 1", "agent.updated 1 n5"]), 1);
    assert_eq!(wrong(&["agent.updated 1 n5", "agent.updated 1 n5"]), 1);
}

#[test]
fn gaps_doubles_and_steps_back_are_found() {
    let stream = record((1..=5).map(note));
    let wrong = |offsets: &[u64]| faults(&[connection(offsets)], &stream).len();
    assert_eq!(wrong(&[2, 3, 4]), 0);
    assert_eq!(wrong(&[]), 0);
    // A gap in the middle, and a gap at the start.
    assert_eq!(wrong(&[2, 4]), 1);
    assert_eq!(wrong(&[3, 4]), 1);
    assert!(wrong(&[2, 3, 3]) > 0);
    assert!(wrong(&[3, 2]) > 0);
    assert!(wrong(&[2, 3, 4, 5, 6]) > 0);
}

#[test]
fn an_event_that_is_stored_twice_is_found_at_both_places() {
    let stored = |offset: u64| match offset {
        3 | 5 => Stored { key: "agent.left 7".to_owned(), session: Some((7, false)), ..note(offset) },
        _ => note(offset),
    };
    let stream = record((1..=6).map(stored));
    let wrong = |offsets: &[u64], told: bool| {
        let mut connection = connection(offsets);
        for seen in &mut connection.seen {
            seen.key = stored(seen.offset.unwrap_or_default()).key;
            seen.offset = seen.offset.filter(|_| told);
        }
        if !told {
            let success = connection.success.take();
            connection.success = success.map(|it| Success { epoch: None, offset: None, recovered: None, ..it });
        }
        faults(&[connection], &stream).len()
    };
    for told in [true, false] {
        assert_eq!((wrong(&[2, 3, 4, 5, 6], told), wrong(&[2, 3, 4, 6], told)), (0, 1), "{told}");
    }
}

#[test]
fn an_event_that_is_stored_twice_is_told_apart_by_what_is_sent_next() {
    let stored = |offset: u64| match offset {
        2 | 6 => Stored { key: "agent.left 7".to_owned(), session: Some((7, false)), ..note(offset) },
        _ => note(offset),
    };
    let stream = record((1..=7).map(stored));
    let wrong = |offsets: &[u64]| {
        let mut connection = Connection { asked: None, ..connection(offsets) };
        let success = connection.success.take();
        connection.success = success.map(|it| Success { epoch: None, offset: None, recovered: None, ..it });
        for seen in &mut connection.seen {
            seen.key = stored(seen.offset.take().unwrap_or_default()).key;
        }
        faults(&[connection], &stream).len()
    };
    assert_eq!((wrong(&[2, 3, 4]), wrong(&[2, 3, 4, 5, 6, 7]), wrong(&[6, 7]), wrong(&[2, 4])), (0, 0, 0, 1));
}

#[test]
fn who_stays_when_the_stream_is_made_anew_is_found() {
    let anew = |offset| Stored { epoch: 1, key: format!("note {}", 4 + offset), ..note(offset) };
    let stream = record((1..=4).map(note).chain((1..=4).map(anew)));
    let wrong = |offsets: &[u64], stayed| faults(&[Connection { stayed, ..connection(offsets) }], &stream).len();
    // Offsets of the second stream, sent to a connection that was not closed.
    assert_eq!((wrong(&[2, 3, 7], false), wrong(&[2, 3, 7], true)), (0, 1));
    assert_eq!((wrong(&[2, 4, 7], false), wrong(&[2, 3, 4], true)), (1, 0));
}

/// Returns how many faults there are if a client that was told neither epoch nor offsets saw these events.
fn faults_without_offsets(stream: &Record, offsets: &[u64], stayed: bool) -> usize {
    let mut connection = Connection { asked: None, stayed, ..connection(offsets) };
    let success = connection.success.take();
    connection.success = success.map(|it| Success { epoch: None, offset: None, recovered: None, ..it });
    connection.seen.iter_mut().for_each(|seen| seen.offset = None);
    faults(&[connection], stream).len()
}

#[test]
fn without_an_epoch_an_event_of_two_streams_does_not_tell_in_which_one_a_connection_began() {
    let anew = |offset| Stored { epoch: 1, key: format!("note {}", 3 + offset), ..note(offset) };
    let stream = record((1..=4).map(note).chain((1..=4).map(anew)));
    let wrong = |offsets: &[u64], stayed| faults_without_offsets(&stream, offsets, stayed);
    assert_eq!((wrong(&[4, 5, 6, 7], true), wrong(&[3, 4, 5], true), wrong(&[4, 6], true)), (0, 1, 1));
    // The second time the event is the later stream's, and the connection goes on until it is closed.
    assert_eq!((wrong(&[3, 4, 4, 5], false), wrong(&[3, 4, 4, 5], true), wrong(&[3, 3, 4], false)), (0, 1, 1));
}

#[test]
fn before_it_is_closed_a_connection_may_be_sent_events_of_a_new_stream_twice() {
    let stored = |epoch, offset| Stored { epoch, key: format!("note {}", 4 * epoch as u64 + offset), ..note(offset) };
    let stream = record((1..=4).map(|offset| stored(0, offset)).chain((1..=4).map(|offset| stored(1, offset))));
    let wrong = |offsets: &[u64], stayed| faults_without_offsets(&stream, offsets, stayed);
    assert_eq!((wrong(&[7, 8, 5, 6, 7, 8], false), wrong(&[7, 8, 7], true)), (0, 1));
    assert_eq!(wrong(&[3, 4, 4], false), 1, "of the first stream nothing comes twice");
}

#[test]
fn a_room_that_was_to_be_filled_may_end_with_the_connection() {
    let rooms = ["classroom.c", "lesson.l"];
    let stored = |offset: u64| Stored { room: rooms[offset as usize % 2].to_owned(), ..note(offset) };
    let stream = record((1..=8).map(stored));
    let wrong = |offsets: &[u64], stayed| {
        let mut connection = Connection { asked: None, stayed, ..connection(offsets) };
        connection.success =
            Some(Success { epoch: None, offset: None, recovered: None, ..connection.success.unwrap() });
        connection.lessons.insert("l".to_owned(), Some(0));
        connection.seen.iter_mut().for_each(|seen| seen.offset = None);
        faults(&[connection], &stream).len()
    };
    let late = [2, 3, 4, 6, 8];
    assert_eq!((wrong(&late, false), wrong(&late, true)), (0, 1));
    let in_the_middle = [2, 3, 4, 6, 7, 8];
    assert_eq!((wrong(&in_the_middle, false), wrong(&in_the_middle, true)), (1, 1));
}
