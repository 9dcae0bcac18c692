//! What must follow from an operator's calls.

use std::time::Instant;

use super::super::journal::Success;
use super::super::past::Past;
use super::super::stream::{Record, Stored};
use super::*;

const AGENT: &str = "web.alice.example.org";

/// Returns the data of a session 7 that an operator ended, and whose client was told.
fn sound() -> (Kicks, Evidence) {
    let reason = KICKED.to_owned();
    let left = Stored { offset: 2, session: Some((7, false)), reason: Some(reason.clone()), ..Stored::default() };
    let evidence = Evidence {
        connections: vec![ended(Some("kicked"), Some(KICKED_CODE))],
        stream: Some(Record { messages: vec![left], epochs: vec!["e".to_owned()] }),
        history: vec![Past { session: 7, agent: AGENT.to_owned(), reason, ..Past::default() }],
        ..Evidence::default()
    };
    (Kicks { ended: BTreeSet::from([7]), asked: BTreeSet::from([AGENT.to_owned()]) }, evidence)
}

fn ended(kind: Option<&str>, code: Option<u16>) -> Connection {
    let error = kind.map(|kind| json!({"type": "unrecoverable_session_error", "payload": {"type": kind}}));
    let success =
        Success { session: 7, at: Instant::now(), sid: "s".to_owned(), epoch: None, offset: None, recovered: None };
    Connection { agent: AGENT.to_owned(), success: Some(success), error, code, ..Connection::default() }
}

#[test]
fn each_broken_promise_is_found() {
    let (kicks, evidence) = sound();
    assert_eq!(faults(&kicks, &evidence), Vec::<String>::new());
    let with = |change: fn(&mut Kicks, &mut Evidence)| {
        let (mut kicks, mut evidence) = sound();
        change(&mut kicks, &mut evidence);
        faults(&kicks, &evidence).len()
    };
    assert_eq!(with(|_, evidence| evidence.history[0].reason = "lost".to_owned()), 1);
    assert_eq!(with(|_, evidence| evidence.stream.iter_mut().for_each(|of| of.messages[0].reason = None)), 1);
    assert_eq!(with(|kicks, _| kicks.asked.clear()), 1);
    assert_eq!(with(|_, evidence| evidence.connections = vec![ended(Some("kicked"), Some(3500))]), 1);
    assert_eq!(with(|_, evidence| evidence.connections = vec![ended(Some("access_denied"), None)]), 1);
    let (kicks, mut evidence) = sound();
    evidence.connections = vec![ended(None, None)];
    assert_eq!(faults(&kicks, &evidence), Vec::<String>::new(), "its client had gone");
    evidence.history[0].reason = "lost".to_owned();
    evidence.lost.insert(7);
    assert_eq!(faults(&kicks, &evidence), Vec::<String>::new(), "the database lost the end");
}
