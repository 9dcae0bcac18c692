//! Sessions without a connection whose clients may come back: what is due first, and whose it is.
//!
//! Invariant: every entry of `by_sid` names one of `by_due`, and the other way round.
use std::collections::{BTreeMap, HashMap};

use rollcall_schema::Sid;
use tokio::time::Instant;

use super::Departure;

/// Two sessions may be due at one moment.
type Key = (Instant, u64);

/// The sessions that wait.
#[derive(Default)]
pub(super) struct Kept {
    by_due: BTreeMap<Key, Departure>,
    by_sid: HashMap<Sid, Key>,
    next: u64,
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.by_due.len()
    }

    /// Whose connections these were.
    pub(super) fn sids(&self) -> Vec<Sid> {
        self.by_sid.keys().copied().collect()
    }

    /// When the first is due.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.by_due.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn insert(&mut self, departure: Departure) {
        let key = (departure.due, self.next);
        self.next += 1;
        self.by_sid.insert(departure.session.sid, key);
        self.by_due.insert(key, departure);
    }

    /// Takes out the one that is due first.
    pub(super) fn pop_first(&mut self) -> Option<Departure> {
        let (_, departure) = self.by_due.pop_first()?;
        self.by_sid.remove(&departure.session.sid);
        Some(departure)
    }

    /// Takes out the session of one connection.
    pub(super) fn remove(&mut self, sid: Sid) -> Option<Departure> {
        self.by_due.remove(&self.by_sid.remove(&sid)?)
    }

    /// Nothing is due later than this.
    pub(super) fn hasten(&mut self, latest: Instant) {
        for mut departure in self.by_due.split_off(&(latest, u64::MAX)).into_values() {
            departure.due = latest;
            self.insert(departure);
        }
    }
}
