//! The ledger: what clients saw, the stream and the history must tell one story.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::Past;
use super::journal::Connection;
use super::stream::Stored;

/// All that is known about a seed when it is over.
#[derive(Debug, Default, Clone)]
pub(super) struct Evidence {
    pub(super) connections: Vec<Connection>,
    pub(super) stream: Vec<Stored>,
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

/// Every entry that does not balance, in words.
pub(super) fn balance(evidence: &Evidence) -> Vec<String> {
    let mut wrong = sessions(evidence);
    wrong.extend(order(evidence));
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
    for message in &evidence.stream {
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
        let Account { entered, left, history, owners, successes } = account;
        let in_order = matches!((&entered[..], &left[..]), ([entered], [left]) if entered < left);
        if !in_order || history != 1 {
            wrong.push(format!(
                "session {session} ({successes} successes): entered at {entered:?}, left at {left:?}, {history} in the \
                 history; {owners:?}"
            ));
        }
        if owners.len() > 1 {
            wrong.push(format!("session {session} has several owners: {owners:?}"));
        }
    }
    wrong
}

/// The sessions of one agent in one classroom follow each other in the stream.
fn order(evidence: &Evidence) -> Vec<String> {
    let mut inside: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for message in &evidence.stream {
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
