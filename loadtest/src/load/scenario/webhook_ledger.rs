//! Compares the events that a receiver of the webhook got with the history of sessions.
//!
//! A receiver ignores an offset that is not above the last one of its classroom (PROTOCOL 10). So an event that comes
//! too late counts as missing.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use rollcall_loadtest::webhook::{Receiver, Taken};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The events that the receiver took.
pub(super) struct Ledger {
    /// The last offset of each epoch and classroom.
    last: HashMap<(String, String), u64>,
    /// The operations of each session, in the order in which they came.
    sessions: HashMap<i64, String>,
    /// Events whose offset was not above the last one of their classroom.
    pub(super) ignored: usize,
    /// When the first event came; `latest` is when the last new one came.
    pub(super) first: Option<Instant>,
    pub(super) latest: Instant,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { last: HashMap::new(), sessions: HashMap::new(), ignored: 0, first: None, latest: Instant::now() }
    }
}

/// The differences between a ledger and the history, in events.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Balance {
    pub(super) missing: usize,
    pub(super) strange: usize,
}

impl Ledger {
    /// Adds the receiver's events until `enough` returns true.
    pub(super) fn follow(&mut self, receiver: &Receiver, enough: impl Fn(&Self) -> bool) {
        loop {
            receiver.drain().into_iter().for_each(|taken| self.add(taken));
            if enough(self) {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn add(&mut self, taken: Taken) {
        let last = self.last.entry((taken.epoch, taken.classroom)).or_default();
        if taken.offset <= *last {
            self.ignored += 1;
            return;
        }
        *last = taken.offset;
        let id = &taken.event["id"];
        let told = self.sessions.entry(id["sequence_id"].as_i64().unwrap_or_default()).or_default();
        told.push_str(id["operation"].as_str().unwrap_or("?"));
        told.push(' ');
        self.latest = Instant::now();
        self.first.get_or_insert(self.latest);
    }

    pub(super) fn balance(&self, history: &HashSet<i64>) -> Balance {
        let strangers = self.sessions.iter().filter(|(session, _)| !history.contains(session));
        let mut balance = Balance { missing: 0, strange: strangers.map(|(_, told)| operations(told)).sum() };
        for session in history {
            match self.sessions.get(session).map_or("", |told| told.trim_end()) {
                "entered left" => {}
                "entered" | "left" => balance.missing += 1,
                "" => balance.missing += 2,
                other => balance.strange += operations(other).saturating_sub(2).max(1),
            }
        }
        balance
    }
}

fn operations(told: &str) -> usize {
    told.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn balance(told: &[(u64, i64, &str)]) -> (Balance, usize) {
        let mut ledger = Ledger::default();
        for (offset, session, operation) in told {
            let event = json!({"id": {"operation": operation, "sequence_id": session}});
            let (epoch, classroom) = ("e".to_owned(), "c".to_owned());
            ledger.add(Taken { epoch, offset: *offset, classroom, reason: None, event });
        }
        (ledger.balance(&HashSet::from([1, 2])), ledger.ignored)
    }

    #[test]
    fn what_is_lost_late_or_strange_is_counted() {
        let all = [(1, 1, "entered"), (2, 2, "entered"), (3, 1, "left"), (4, 2, "left")];
        let of = |missing, strange| Balance { missing, strange };
        assert_eq!(balance(&all), (of(0, 0), 0));
        assert_eq!(balance(&[&all[..], &all[..2]].concat()), (of(0, 0), 2), "a late request is ignored");
        assert_eq!(balance(&all[..2]), (of(2, 0), 0));
        assert_eq!(balance(&[all[1], all[0], all[2], all[3]]), (of(1, 0), 1), "entered came too late to count");
        assert_eq!(balance(&[(1, 1, "left"), (2, 1, "entered"), (3, 2, "entered"), all[3]]), (of(0, 1), 0));
        assert_eq!(balance(&[&all[..], &[(5, 2, "left")]].concat()), (of(0, 1), 0));
        assert_eq!(balance(&[&all[..], &[(5, 9, "entered")]].concat()), (of(0, 1), 0));
    }
}
