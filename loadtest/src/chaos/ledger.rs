//! The ledger: what clients saw, the stream and the history must agree.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::Past;
use super::journal::{Connection, UPDATED};
use super::stream::{Place, Record, Stored};

/// All that is known about a seed when it is over.
#[derive(Debug, Default, Clone)]
pub(super) struct Evidence {
    pub(super) connections: Vec<Connection>,
    /// None of an embedded node: its log ends with it.
    pub(super) stream: Option<Record>,
    pub(super) history: Vec<Past>,
    /// Sessions of which the database lost something that it had written.
    pub(super) lost: BTreeSet<i64>,
    /// The highest session when the database failed over; zero where it did not.
    pub(super) doubtful: i64,
    /// Fields that are left in Redis once no agent is in a lesson.
    pub(super) fields: Vec<String>,
}

/// One session's entries.
#[derive(Default)]
struct Account {
    /// In the stream's order; true for entered, false for left.
    events: Vec<(Place, bool)>,
    history: usize,
    /// (agent, classroom) as each source has it.
    owners: BTreeSet<(String, String)>,
    successes: usize,
    /// The database lost something of it: it may have ended once more, and its entered may be gone before it was told.
    lost: bool,
    /// It was there when the database failed over: each later takeover tells of it anew, for its entered may be lost.
    doubtful: bool,
}

impl Account {
    /// What is promised of a session and is not so.
    fn broken(&self, with_stream: bool) -> Vec<String> {
        let mut broken = Vec::new();
        if self.history != 1 {
            broken.push(format!("{} rows in agent_session_history", self.history));
        }
        if with_stream {
            broken.extend(self.published());
        }
        broken
    }

    /// What is wrong with its events. What a stream held that is gone may be published once more into the next one: its
    /// publisher may have had no answer. So each stream has each event once at most, the first of all is entered, and the
    /// last of each stream that has more than one is left.
    fn published(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (event, entered) in [("agent.entered", true), ("agent.left", false)] {
            let places = self.events.iter().filter(|(_, of)| *of == entered).map(|(place, _)| *place);
            let places: Vec<Place> = places.collect();
            if places.is_empty() && !(self.lost && entered) {
                broken.push(format!("{event} was never published"));
            }
            let doubles = places.windows(2).filter(|pair| pair[0].0 == pair[1].0).count();
            let excused = if entered { usize::from(self.doubtful) * self.successes } else { usize::from(self.lost) };
            if doubles > excused {
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

/// Every entry that does not balance, in words.
pub(super) fn balance(evidence: &Evidence) -> Vec<String> {
    let mut wrong = sessions(evidence);
    wrong.extend(
        evidence
            .stream
            .as_ref()
            .map(|stream| order(&stream.messages, &evidence.lost, evidence.doubtful))
            .unwrap_or_default(),
    );
    wrong
        .extend(evidence.stream.iter().flat_map(|stream| updates(&stream.messages, &evidence.lost, evidence.doubtful)));
    wrong.extend(evidence.connections.iter().filter_map(refused_for_good));
    wrong.extend(evidence.fields.iter().map(|field| format!("Redis names a connection that is over: {field}")));
    wrong
}

/// Nobody here asks for what would fail again: whatever refuses to let somebody in must say that it may mend itself, but
/// where the agent's next connection was faster.
fn refused_for_good(connection: &Connection) -> Option<String> {
    let Connection { agent, node, success, end, .. } = connection;
    let for_good = end.contains("unrecoverable_session_error") && !end.contains("\"replaced\"");
    let refused = success.is_none() && for_good;
    refused.then(|| format!("{agent} was refused for good by node {node}: {end}"))
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
        account.doubtful = session <= evidence.doubtful;
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

/// The sessions of one agent in one classroom follow each other in each stream; but for the second end of those of which
/// something was lost.
fn order(stream: &[Stored], lost: &BTreeSet<i64>, doubtful: i64) -> Vec<String> {
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
        // A takeover may tell of a session anew.
        if let Some(before) = before.filter(|before| !(entered && *before == session && session <= doubtful)) {
            let what = if entered { "entered" } else { "left" };
            wrong.push(format!("{sender}: session {session} {what} at {} while {before} was there", message.offset));
        }
    }
    wrong
}

/// Each update of a session is after its entered, and before its left; but where the database lost something.
fn updates(stream: &[Stored], lost: &BTreeSet<i64>, doubtful: i64) -> Vec<String> {
    // By session: whether it was entered at all, and whether it has left the stream at hand.
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
mod tests {
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
        }
    }

    fn connection(session: i64) -> Connection {
        Connection {
            agent: AGENT.to_owned(),
            classroom: "c".to_owned(),
            node: 0,
            asked: None,
            success: Some(Success {
                session,
                sid: format!("sid-{session}"),
                epoch: None,
                offset: None,
                recovered: None,
            }),
            lessons: BTreeMap::new(),
            seen: Vec::new(),
            end: String::new(),
            stayed: false,
        }
    }

    fn past(session: i64) -> Past {
        Past { session, agent: AGENT.to_owned(), classroom: "c".to_owned() }
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
        // The stream was made anew in between.
        assert_eq!(wrong(&[entered, left, Stored { epoch: 1, ..update(1, 7) }]), 0);
        assert_eq!(
            updates(&[update(1, 7)], &BTreeSet::from([7]), 0).len()
                + updates(&[update(1, 7)], &BTreeSet::new(), 7).len(),
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
            ("refused for good", |evidence, _| {
                let end = "came instead: {\"type\":\"unrecoverable_session_error\"}".to_owned();
                evidence.connections.push(Connection { success: None, end, ..connection(3) });
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
            // Offsets are places in the stream.
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
}
