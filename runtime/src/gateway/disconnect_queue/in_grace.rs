//! Sessions without a connection whose clients may come back, by the time when they end and by sid.
//!
//! Invariant: every entry of `by_sid` names one of `by_due`, and the other way round.
use std::collections::{BTreeMap, HashMap};

use rollcall_schema::{LeftReason, Sid};
use tokio::time::Instant;

use crate::handler::session::Session;

/// A session whose connection has ended.
pub(super) struct Disconnected {
    pub session: Box<Session>,
    pub reason: LeftReason,
    /// When disconnect runs for it.
    pub due: Instant,
}

/// Two sessions may be due at one moment.
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

    /// The sids of their connections.
    pub(super) fn sids(&self) -> Vec<Sid> {
        self.by_sid.keys().copied().collect()
    }

    /// When the first of them ends.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.by_due.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn insert(&mut self, disconnected: Disconnected) {
        let key = (disconnected.due, self.next);
        self.next += 1;
        self.by_sid.insert(disconnected.session.sid(), key);
        self.by_due.insert(key, disconnected);
    }

    /// Takes out the one that ends first.
    pub(super) fn pop_first(&mut self) -> Option<Disconnected> {
        let (_, disconnected) = self.by_due.pop_first()?;
        self.by_sid.remove(&disconnected.session.sid());
        Some(disconnected)
    }

    /// The session of one connection.
    pub(super) fn session(&mut self, sid: Sid) -> Option<&mut Session> {
        self.by_due.get_mut(self.by_sid.get(&sid)?).map(|disconnected| &mut *disconnected.session)
    }

    /// Takes out the session of one connection.
    pub(super) fn remove(&mut self, sid: Sid) -> Option<Disconnected> {
        self.by_due.remove(&self.by_sid.remove(&sid)?)
    }

    /// None of them ends later than this.
    pub(super) fn limit_to(&mut self, latest: Instant) {
        for mut disconnected in self.by_due.split_off(&(latest, u64::MAX)).into_values() {
            disconnected.due = latest;
            self.insert(disconnected);
        }
    }
}
