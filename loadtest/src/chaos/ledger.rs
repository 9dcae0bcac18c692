//! The ledger: what clients saw, the stream and the history must tell one story.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::Past;
use super::journal::Connection;
use super::stream::Stored;

/// All that is known about a seed when it is over.
#[derive(Debug, Default, Clone)]
pub(super) struct Evidence {
    pub(super) connections: Vec<Connection>,
    /// None of an embedded node: its log ends with it.
    pub(super) stream: Option<Vec<Stored>>,
    pub(super) history: Vec<Past>,
    /// Fields in Redis, when nobody is in any lesson.
    pub(super) fields: Vec<String>,
}

/// One session's entries.
#[derive(Default)]
struct Account {
    entered: Vec<u64>,
    left: Vec<u64>,
    history: usize,
    /// (agent, classroom) as each source has it.
    owners: BTreeSet<(String, String)>,
    successes: usize,
}

impl Account {
    /// What is promised of a session and is not so.
    fn broken(&self, with_stream: bool) -> Vec<String> {
        let mut broken = Vec::new();
        if self.history != 1 {
            broken.push(format!("{} rows in agent_session_history", self.history));
        }
        for (event, places) in [("agent.entered", &self.entered), ("agent.left", &self.left)] {
            match &places[..] {
                [] if with_stream => broken.push(format!("{event} was never published")),
                [_, _, ..] => broken.push(format!("{event} was published {} times, at {places:?}", places.len())),
                _ => {}
            }
        }
        if let ([entered], [left]) = (&self.entered[..], &self.left[..])
            && left < entered
        {
            broken.push(format!("agent.left at {left} is before agent.entered at {entered}"));
        }
        broken
    }
}

/// Every entry that does not balance, in words.
pub(super) fn balance(evidence: &Evidence) -> Vec<String> {
    let mut wrong = sessions(evidence);
    wrong.extend(evidence.stream.as_deref().map(order).unwrap_or_default());
    wrong.extend(evidence.fields.iter().map(|field| format!("Redis names a connection that is over: {field}")));
    wrong
}

/// Each session once in the history, and once entered before it once left; also those without a success, or nothing.
fn sessions(evidence: &Evidence) -> Vec<String> {
    let mut accounts: BTreeMap<i64, Account> = BTreeMap::new();
    for connection in &evidence.connections {
        if let Some(success) = &connection.success {
            let account = accounts.entry(success.session).or_default();
            account.successes += 1;
            account.owners.insert((connection.agent.clone(), connection.classroom.clone()));
        }
    }
    for past in &evidence.history {
        let account = accounts.entry(past.session).or_default();
        account.history += 1;
        account.owners.insert((past.agent.clone(), past.classroom.clone()));
    }
    let mut wrong = Vec::new();
    let mut sids = BTreeSet::new();
    for success in evidence.connections.iter().filter_map(|connection| connection.success.as_ref()) {
        if !sids.insert(&success.sid) {
            wrong.push(format!("two connections have the sid {}", success.sid));
        }
    }
    let mut ids = BTreeSet::new();
    for message in evidence.stream.iter().flatten() {
        if !message.message_id.is_empty() && !ids.insert(&message.message_id) {
            wrong.push(format!("message id {} is in the stream twice", message.message_id));
        }
        let Some((session, entered)) = message.session else { continue };
        if message.message_id.is_empty() {
            wrong.push(format!("the event of session {session} at {} has no message id", message.offset));
        }
        let account = accounts.entry(session).or_default();
        if entered { &mut account.entered } else { &mut account.left }.push(message.offset);
        let classroom = message.room.trim_start_matches("classroom.").to_owned();
        account.owners.insert((message.sender.clone().unwrap_or_default(), classroom));
    }
    for (session, account) in accounts {
        let broken = account.broken(evidence.stream.is_some());
        let Account { owners, successes, .. } = account;
        if !broken.is_empty() {
            let broken = broken.join("; ");
            wrong.push(format!("session {session} of {owners:?}, let in {successes} times: {broken}"));
        }
        if owners.len() > 1 {
            wrong.push(format!("session {session} has several owners: {owners:?}"));
        }
    }
    wrong
}

/// The sessions of one agent in one classroom follow each other in the stream.
fn order(stream: &[Stored]) -> Vec<String> {
    let mut inside: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for message in stream {
        let (Some((session, entered)), Some(sender)) = (message.session, &message.sender) else { continue };
        let before = if entered {
            inside.insert((sender, &message.room), session)
        } else {
            inside.remove(&(sender.as_str(), message.room.as_str())).filter(|other| *other != session)
        };
        if let Some(before) = before {
            let what = if entered { "entered" } else { "left" };
            wrong.push(format!("{sender}: session {session} {what} at {} while {before} was there", message.offset));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::journal::Success;
    use super::*;

    const AGENT: &str = "web.alice.example.org";

    fn event(offset: u64, session: i64, entered: bool) -> Stored {
        let operation = if entered { "entered" } else { "left" };
        Stored {
            offset,
            room: "classroom.c".to_owned(),
            key: format!("agent.{operation} {session}"),
            message_id: format!("agent.{operation}:i:{session}:n"),
            sender: Some(AGENT.to_owned()),
            session: Some((session, entered)),
        }
    }

    fn connection(session: i64) -> Connection {
        Connection {
            agent: AGENT.to_owned(),
            classroom: "c".to_owned(),
            node: 0,
            asked: None,
            success: Some(Success { session, sid: format!("sid-{session}"), offset: None, recovered: None }),
            lessons: BTreeMap::new(),
            seen: Vec::new(),
            end: String::new(),
            stayed: false,
        }
    }

    fn past(session: i64) -> Past {
        Past { session, agent: AGENT.to_owned(), classroom: "c".to_owned() }
    }

    fn sound() -> Evidence {
        Evidence {
            connections: vec![connection(1), connection(2)],
            stream: Some(vec![event(1, 1, true), event(3, 1, false), event(4, 2, true), event(6, 2, false)]),
            history: vec![past(1), past(2)],
            fields: Vec::new(),
        }
    }

    #[test]
    fn what_is_sound_balances() {
        assert_eq!(balance(&sound()), Vec::<String>::new());
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
        let break_it: [Break; 9] = [
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
            let mut stream = evidence.stream.take().unwrap_or_default();
            change(&mut evidence, &mut stream);
            // Offsets are places in the stream.
            for (place, message) in stream.iter_mut().enumerate() {
                message.offset = place as u64 + 1;
            }
            evidence.stream = Some(stream);
            assert_ne!(balance(&evidence), Vec::<String>::new(), "{what}");
        }
    }
}
