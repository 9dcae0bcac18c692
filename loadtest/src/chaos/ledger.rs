//! The ledger: what the clients saw, the stream and the history must agree.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Connection, UPDATED};
use super::past::Past;
use super::stream::{Place, Record, Stored};

/// Everything that is known of a seed at its end.
#[derive(Debug, Default, Clone)]
pub(super) struct Evidence {
    pub(super) connections: Vec<Connection>,
    /// `None` if the node is embedded, because its log ends with the node.
    pub(super) stream: Option<Record>,
    pub(super) history: Vec<Past>,
    /// Sessions of which a failover of the database lost some rows.
    pub(super) lost: BTreeSet<i64>,
    /// Sessions of which a failover of the database lost all rows.
    pub(super) gone: BTreeSet<i64>,
    /// The highest session id when the database failed over; zero if it did not.
    pub(super) doubtful: i64,
    /// Sessions that no database and no node knows of any more (see
    /// [`Aftermath::forgotten`](super::aftermath::Aftermath::forgotten)).
    pub(super) forgotten: BTreeSet<i64>,
    /// Fields that are left in Redis when no agent is in a lesson any more.
    pub(super) fields: Vec<String>,
}

/// What the sources say of one session.
#[derive(Default)]
struct Account {
    /// The session's events in the stream's order. True for entered, false for left.
    events: Vec<(Place, bool)>,
    history: usize,
    /// The pairs (agent, classroom) that the sources name.
    owners: BTreeSet<(String, String)>,
    successes: usize,
    /// The database lost some of the session's rows. So the session may have left a second time, and its entered may be
    /// lost before it was published.
    lost: bool,
    /// No database and no node knows of the session any more, so its end cannot be written.
    forgotten: bool,
}

impl Account {
    /// Returns the promises that were broken for this session.
    fn broken(&self, with_stream: bool) -> Vec<String> {
        let mut broken = Vec::new();
        if self.history != 1 && !(self.forgotten && self.history == 0) {
            broken.push(format!("{} rows in agent_session_history", self.history));
        }
        if with_stream {
            broken.extend(self.published());
        }
        broken
    }

    /// Returns the faults of the session's events. An event of a stream that is gone may be published once more into
    /// the next stream, because its publisher may have got no answer. So each stream has each event at most once. The
    /// first event of all is entered. If a stream has several events, the last of them is left.
    fn published(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (event, entered) in [("agent.entered", true), ("agent.left", false)] {
            let places = self.events.iter().filter(|(_, of)| *of == entered).map(|(place, _)| *place);
            let places: Vec<Place> = places.collect();
            if places.is_empty() && !(self.lost && entered || self.forgotten) {
                broken.push(format!("{event} was never published"));
            }
            let doubles = places.windows(2).filter(|pair| pair[0].0 == pair[1].0).count();
            if doubles > usize::from(self.lost && !entered) {
                broken.push(format!("{event} was published {} times, at {places:?}", places.len()));
            }
        }
        let mut here = None;
        for (place, entered) in &self.events {
            match here.replace((place.0, *entered)) {
                Some((epoch, false)) if *entered && epoch == place.0 => {
                    broken.push(format!("agent.entered at {place:?} comes after agent.left"));
                }
                None if !entered && !self.lost => {
                    broken.push(format!("agent.left at {place:?} is before agent.entered"))
                }
                _ => {}
            }
        }
        if let Some((place, true)) = self.events.last()
            && self.events.iter().any(|(_, entered)| !entered)
        {
            broken.push(format!("agent.entered at {place:?} comes after every agent.left"));
        }
        broken
    }
}

/// Returns every broken rule, in words.
pub(super) fn balance(evidence: &Evidence) -> Vec<String> {
    let mut wrong = sessions(evidence);
    wrong.extend(
        evidence
            .stream
            .as_ref()
            .map(|stream| order(&stream.messages, &evidence.lost, &evidence.gone))
            .unwrap_or_default(),
    );
    wrong
        .extend(evidence.stream.iter().flat_map(|stream| updates(&stream.messages, &evidence.lost, evidence.doubtful)));
    wrong.extend(evidence.connections.iter().filter_map(refused_permanently));
    wrong.extend(evidence.fields.iter().map(|field| format!("Redis names a connection that is over: {field}")));
    wrong
}

/// Returns the fault if a connection was refused permanently. No agent here makes a request that must fail for ever. So
/// a refusal must be recoverable, unless the agent's next connection or an operator ended the connection first.
fn refused_permanently(connection: &Connection) -> Option<String> {
    let Connection { agent, node, success, end, .. } = connection;
    let permanently = connection.ended_permanently();
    let refused = success.is_none() && permanently && !connection.was_kicked();
    refused.then(|| format!("{agent} was refused permanently by node {node}: {end}"))
}

/// Checks that each session is in the history once, and has one entered before one left. The rule also applies to
/// sessions whose client got no connect_success.
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
    for message in evidence.stream.iter().flat_map(|stream| &stream.messages) {
        if !message.message_id.is_empty() && !ids.insert((message.epoch, &message.message_id)) {
            wrong.push(format!("message id {} is in the stream twice", message.message_id));
        }
        let Some((session, entered)) = message.session else { continue };
        if message.message_id.is_empty() {
            wrong.push(format!("the event of session {session} at {} has no message id", message.offset));
        }
        let account = accounts.entry(session).or_default();
        account.events.push((message.place(), entered));
        let classroom = message.room.trim_start_matches("classroom.").to_owned();
        account.owners.insert((message.sender.clone().unwrap_or_default(), classroom));
    }
    for (session, mut account) in accounts {
        account.lost = evidence.lost.contains(&session);
        account.forgotten = evidence.forgotten.contains(&session);
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

/// Checks that the sessions of one agent in one classroom follow each other in each stream. The second left of a
/// session whose rows were partly lost is excused. If all rows of a session were lost, the session's node writes the
/// session's end late, and the agent may have entered again before.
fn order(stream: &[Stored], lost: &BTreeSet<i64>, gone: &BTreeSet<i64>) -> Vec<String> {
    let mut inside: BTreeMap<(usize, &str, &str), i64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for message in stream {
        let (Some((session, entered)), Some(sender)) = (message.session, &message.sender) else { continue };
        let inside_now = inside.get(&(message.epoch, sender.as_str(), message.room.as_str()));
        if !entered && lost.contains(&session) && inside_now != Some(&session) {
            continue;
        }
        let before = if entered {
            inside.insert((message.epoch, sender, &message.room), session)
        } else {
            inside.remove(&(message.epoch, sender.as_str(), message.room.as_str())).filter(|other| *other != session)
        };
        if let Some(before) = before.filter(|before| !gone.contains(before)) {
            let what = if entered { "entered" } else { "left" };
            wrong.push(format!("{sender}: session {session} {what} at {} while {before} was there", message.offset));
        }
    }
    wrong
}

/// Checks that each update of a session comes after its entered and before its left. Sessions of which the database
/// lost rows are excused.
fn updates(stream: &[Stored], lost: &BTreeSet<i64>, doubtful: i64) -> Vec<String> {
    // By session: whether it has entered, and the stream that it has left, if it has.
    let mut sessions: BTreeMap<i64, (bool, Option<usize>)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for message in stream {
        if let Some((session, entered)) = message.session {
            let (was_entered, left) = sessions.entry(session).or_default();
            *was_entered |= entered;
            *left = (!entered).then_some(message.epoch);
        } else if let Some(session) = message.key.strip_prefix(UPDATED)
            && let Some(session) = session.split(' ').next().and_then(|session| session.parse::<i64>().ok())
            && session > doubtful
            && !lost.contains(&session)
        {
            let (entered, left) = sessions.get(&session).copied().unwrap_or_default();
            if !entered || left == Some(message.epoch) {
                let when = if entered { "after its left" } else { "before its entered" };
                wrong.push(format!("{} at {} comes {when}", message.key, message.offset));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests;
