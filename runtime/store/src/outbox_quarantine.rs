//! The quarantine of the outbox: rows that cannot be published, and the later rows of the same agents.
//!
//! Invariant: a row is published only when no earlier row of its agent in its classroom is quarantined.
use std::{collections::HashSet, hash::Hash, time::Duration};

use crate::{OutboxRow, StoreError};
use rollcall_base::names;

/// The time after which a quarantined row is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How many rows are released at once, each with all others of its agent.
pub(super) const RELEASED_AT_ONCE: usize = 100;
/// The reason in rows that are only quarantined because an earlier row is.
const LATER: &str = "an earlier event of this agent in this classroom was set aside";

/// Rows of one read, sorted into those to publish and those to quarantine.
pub(super) struct SortedRows<K> {
    keys: HashSet<K>,
    rows: Vec<OutboxRow>,
    later: Vec<i64>,
    unreadable: Vec<(i64, String)>,
}

impl<K> Default for SortedRows<K> {
    fn default() -> Self {
        Self { keys: HashSet::new(), rows: Vec::new(), later: Vec::new(), unreadable: Vec::new() }
    }
}

impl<K: Eq + Hash> SortedRows<K> {
    /// Adds the next row in order. `key` is its agent and classroom, `later` says whether an earlier row of them is
    /// quarantined.
    pub(super) fn add(&mut self, key: K, id: i64, later: bool, row: impl FnOnce() -> Result<OutboxRow, StoreError>) {
        if later || !self.keys.is_empty() && self.keys.contains(&key) {
            return self.later.push(id);
        }
        match row() {
            Ok(row) => self.rows.push(row),
            Err(error) => {
                self.keys.insert(key);
                self.unreadable.push((id, error.to_string()));
            }
        }
    }

    /// Returns the rows to publish, and the ids to quarantine with their reason.
    pub(super) fn finish(self) -> (Vec<OutboxRow>, Vec<(Vec<i64>, String)>) {
        let count = |reason, count: usize| {
            metrics::counter!(names::OUTBOX_SET_ASIDE, "reason" => reason).increment(count as u64);
        };
        let mut quarantined: Vec<_> = self.unreadable.into_iter().map(|(id, why)| (vec![id], why)).collect();
        if !quarantined.is_empty() {
            count("unreadable", quarantined.len());
        }
        if !self.later.is_empty() {
            count("later", self.later.len());
            quarantined.push((self.later, LATER.to_owned()));
        }
        (self.rows, quarantined)
    }
}
