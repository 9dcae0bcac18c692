//! Which evidence balances, and which does not.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::aftermath::Aftermath;
use super::super::journal::Success;
use super::*;

const AGENT: &str = "web.alice.example.org";

fn event(offset: u64, session: i64, entered: bool) -> Stored {
    let operation = if entered { "entered" } else { "left" };
    Stored {
        epoch: 0,
        offset,
        room: "classroom.c".to_owned(),
        key: format!("agent.{operation} {session}"),
        message_id: format!("agent.{operation}:i:{session}:{offset}"),
        sender: Some(AGENT.to_owned()),
        session: Some((session, entered)),
        reason: None,
    }
}

fn connection(session: i64) -> Connection {
    Connection {
        agent: AGENT.to_owned(),
        classroom: "c".to_owned(),
        success: Some(Success {
            session,
            at: Instant::now(),
            sid: format!("sid-{session}"),
            epoch: None,
            offset: None,
            recovered: None,
        }),
        ..Connection::default()
    }
}

fn past(session: i64) -> Past {
    Past { session, agent: AGENT.to_owned(), classroom: "c".to_owned(), reason: "closed".to_owned() }
}

fn record(messages: Vec<Stored>) -> Record {
    Record { messages, epochs: vec!["e".to_owned()] }
}

fn sound() -> Evidence {
    Evidence {
        connections: vec![connection(1), connection(2)],
        stream: Some(record(vec![event(1, 1, true), event(3, 1, false), event(4, 2, true), event(6, 2, false)])),
        history: vec![past(1), past(2)],
        ..Evidence::default()
    }
}

#[test]
fn what_is_sound_balances() {
    assert_eq!(balance(&sound()), Vec::<String>::new());
}

#[test]
fn an_update_is_between_entered_and_left() {
    let update = |offset, session: i64| Stored {
        key: format!("{UPDATED}{session} n{offset}"),
        message_id: format!("agent.updated:i:{session}:{offset}"),
        session: None,
        ..event(offset, session, true)
    };
    let wrong = |messages: &[Stored]| updates(messages, &BTreeSet::new(), 0).len();
    let [entered, left] = [event(1, 7, true), event(5, 7, false)];
    assert_eq!(wrong(&[entered.clone(), update(2, 7), update(3, 7), left.clone()]), 0);
    assert_eq!(wrong(&[entered.clone(), left.clone(), update(6, 7)]), 1);
    assert_eq!(wrong(&[update(1, 7), entered.clone(), left.clone()]), 1);
    // The stream was created again between the left and the update.
    assert_eq!(wrong(&[entered, left, Stored { epoch: 1, ..update(1, 7) }]), 0);
    assert_eq!(
        updates(&[update(1, 7)], &BTreeSet::from([7]), 0).len() + updates(&[update(1, 7)], &BTreeSet::new(), 7).len(),
        0
    );
}

#[test]
fn without_a_stream_the_history_counts() {
    let mut evidence = Evidence { stream: None, ..sound() };
    assert_eq!(balance(&evidence), Vec::<String>::new());
    evidence.history.pop();
    assert_eq!(balance(&evidence).len(), 1);
}

#[test]
fn each_broken_promise_is_found() {
    type Break = (&'static str, fn(&mut Evidence, &mut Vec<Stored>));
    let break_it: [Break; 10] = [
        ("refused permanently", |evidence, _| {
            let error = Some(json!({"type": "unrecoverable_session_error"}));
            evidence.connections.push(Connection { success: None, error, ..connection(3) });
        }),
        ("no history", |evidence, _| drop(evidence.history.pop())),
        ("two rows", |evidence, _| evidence.history.push(past(2))),
        ("no left", |_, stream| drop(stream.pop())),
        ("left first", |_, stream| stream.swap(2, 3)),
        ("published twice", |_, stream| stream.push(event(7, 2, false))),
        ("no message id", |_, stream| stream[0].message_id.clear()),
        ("overlapping", |_, stream| stream.swap(1, 2)),
        ("half of a session that nobody got", |_, stream| stream.push(event(7, 3, true))),
        ("a field", |evidence, _| evidence.fields.push("lesson_student_x: alice -> sid".to_owned())),
    ];
    for (what, change) in break_it {
        let mut evidence = sound();
        let mut stream = evidence.stream.take().unwrap_or_default().messages;
        change(&mut evidence, &mut stream);
        // The offset of a message is its place in the stream.
        for (place, message) in stream.iter_mut().enumerate() {
            message.offset = place as u64 + 1;
        }
        evidence.stream = Some(record(stream));
        assert_ne!(balance(&evidence), Vec::<String>::new(), "{what}");
    }
}
#[test]
fn a_stream_that_is_gone_may_have_had_what_the_next_one_has() {
    let of = |events: &[(usize, u64, i64, bool)]| {
        let stored = events.iter().map(|(epoch, offset, session, entered)| {
            let event = event(*offset, *session, *entered);
            Stored { epoch: *epoch, ..event }
        });
        let history = vec![past(1)];
        let stream = Some(record(stored.collect()));
        balance(&Evidence { connections: vec![connection(1)], stream, history, ..Evidence::default() })
    };
    let sound: [&[(usize, u64, i64, bool)]; 3] = [
        &[(0, 7, 1, true), (1, 1, 1, false)],
        &[(0, 7, 1, true), (1, 1, 1, true), (1, 2, 1, false)],
        &[(0, 7, 1, true), (0, 8, 1, false), (1, 1, 1, true), (1, 2, 1, false)],
    ];
    sound.into_iter().for_each(|events| assert_eq!(of(events), Vec::<String>::new()));
    assert_ne!(of(&[(0, 7, 1, true), (0, 8, 1, false), (1, 1, 1, true)]), Vec::<String>::new());
    assert_ne!(of(&[(0, 7, 1, true), (1, 1, 1, false), (1, 2, 1, true)]), Vec::<String>::new());
    assert_ne!(of(&[(0, 7, 1, false), (1, 1, 1, true), (1, 2, 1, false)]), Vec::<String>::new());
}

#[test]
fn of_a_session_of_which_something_was_lost_no_more_than_its_second_end_is_excused() {
    let of = |events: &[(i64, bool)], lost: &[i64], over: &[i64]| {
        let stored = events.iter().zip(1..).map(|((session, entered), offset)| event(offset, *session, *entered));
        let stream = Some(record(stored.collect()));
        let history = over.iter().copied().map(past).collect();
        let connections = vec![connection(1), connection(2)];
        let lost = lost.iter().copied().collect();
        balance(&Evidence { connections, stream, history, lost, ..Evidence::default() }).len()
    };
    let twice = [(1, true), (1, false), (2, true), (1, false), (2, false)];
    assert_eq!(of(&twice, &[1], &[1, 2]), 0);
    assert_ne!(of(&twice, &[2], &[1, 2]), 0);
    assert_ne!(of(&twice, &[1], &[2]), 0);
    assert_eq!(of(&[(1, false), (2, true), (2, false)], &[1], &[1, 2]), 0);
    assert_ne!(of(&[(1, true), (2, true), (2, false)], &[1], &[1, 2]), 0);
}

#[test]
fn a_session_that_nobody_knows_of_any_more_and_no_other_is_excused() {
    let mut aftermath = Aftermath::default();
    aftermath.loss.gone = BTreeSet::from([1, 2, 3]);
    let connections = [connection(1), connection(2)];
    let let_in = connections[1].success.as_ref().map_or_else(Instant::now, |success| success.at);
    assert_eq!(aftermath.forgotten(&connections), BTreeSet::from([3]), "their node goes on");
    aftermath.ends = vec![(0, let_in - Duration::from_secs(1)), (1, let_in)];
    assert_eq!(aftermath.forgotten(&connections), BTreeSet::from([3]), "it ended before, or is another one");
    aftermath.ends = vec![(0, let_in)];
    assert_eq!(aftermath.forgotten(&connections), BTreeSet::from([1, 2, 3]));

    aftermath.loss.fields = BTreeSet::from(["sid-1 x".to_owned()]);
    let forgets = |aftermath: &Aftermath, field: &str| aftermath.forgets_field(field, &connections);
    assert!(forgets(&aftermath, "lesson_student_x: alice -> sid-1"));
    for other in ["lesson_student_y: alice -> sid-1", "lesson_student_x: alice -> sid-2"] {
        assert!(!forgets(&aftermath, other), "{other}");
    }
    aftermath.ends.clear();
    assert!(!forgets(&aftermath, "lesson_student_x: alice -> sid-1"));

    let of = |forgotten: &[i64], over: &[i64]| {
        let stream = Some(record(vec![event(1, 1, true), event(2, 2, true), event(3, 2, false)]));
        let history = over.iter().copied().map(past).collect();
        let (connections, forgotten) = (vec![connection(1), connection(2)], forgotten.iter().copied().collect());
        let gone = BTreeSet::from([1]);
        balance(&Evidence { connections, stream, history, gone, forgotten, ..Evidence::default() }).len()
    };
    assert_eq!(of(&[1], &[2]), 0);
    assert_ne!(of(&[], &[2]), 0);
    assert_ne!(of(&[1], &[]), 0);
    assert_ne!(of(&[2], &[1, 2]), 0);
}

#[test]
fn the_end_of_a_session_of_which_all_was_lost_may_come_after_the_agents_next_beginning() {
    let of = |gone: &[i64]| {
        let events = [(1, true), (2, true), (1, false), (2, false)];
        let stored = events.iter().zip(1..).map(|((session, entered), offset)| event(offset, *session, *entered));
        let (connections, history) = (vec![connection(1), connection(2)], vec![past(1), past(2)]);
        let (gone, lost) = (gone.iter().copied().collect(), BTreeSet::from([1, 2]));
        let stream = Some(record(stored.collect()));
        balance(&Evidence { connections, stream, history, lost, gone, ..Evidence::default() }).len()
    };
    assert_eq!(of(&[1]), 0);
    assert_ne!(of(&[2]), 0);
}
