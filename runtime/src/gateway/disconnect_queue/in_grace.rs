//! The sessions that have no connection and whose clients may come back, by the time when they end and by sid.
//!
//! Invariant: every entry of `by_sid` names an entry of `by_due`, and every entry of `by_due` is named by an entry of
//! `by_sid`.
use std::collections::{BTreeMap, HashMap};

use rollcall_schema::{LeftReason, Sid};
use tokio::time::Instant;

use crate::handler::session::Session;

/// A session whose connection has ended.
pub(super) struct Disconnected {
    pub session: Box<Session>,
    pub reason: LeftReason,
    /// When disconnect runs for the session.
    pub due: Instant,
}

/// The time and a serial number, because two sessions may end at the same time.
type Key = (Instant, u64);

/// The sessions that wait for their clients.
#[derive(Default)]
pub(super) struct InGrace {
    by_due: BTreeMap<Key, Disconnected>,
    by_sid: HashMap<Sid, Key>,
    next: u64,
}

impl InGrace {
    pub(super) fn len(&self) -> usize {
        self.by_due.len()
    }

    /// Returns the sids of the sessions' connections.
    pub(super) fn sids(&self) -> Vec<Sid> {
        self.by_sid.keys().copied().collect()
    }

    /// Returns when the first session ends.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.by_due.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn insert(&mut self, disconnected: Disconnected) {
        let key = (disconnected.due, self.next);
        self.next += 1;
        self.by_sid.insert(disconnected.session.sid(), key);
        self.by_due.insert(key, disconnected);
    }

    /// Removes and returns the session that ends first.
    pub(super) fn pop_first(&mut self) -> Option<Disconnected> {
        let (_, disconnected) = self.by_due.pop_first()?;
        self.by_sid.remove(&disconnected.session.sid());
        Some(disconnected)
    }

    /// Returns the session of a connection.
    pub(super) fn session(&mut self, sid: Sid) -> Option<&mut Session> {
        self.by_due.get_mut(self.by_sid.get(&sid)?).map(|disconnected| &mut *disconnected.session)
    }

    /// Removes and returns the session of a connection.
    pub(super) fn remove(&mut self, sid: Sid) -> Option<Disconnected> {
        self.by_due.remove(&self.by_sid.remove(&sid)?)
    }

    /// Makes every session end at this time or earlier.
    pub(super) fn limit_to(&mut self, latest: Instant) {
        for mut disconnected in self.by_due.split_off(&(latest, u64::MAX)).into_values() {
            disconnected.due = latest;
            self.insert(disconnected);
        }
    }
}
