//! The quarantine of the outbox: rows that cannot be published, and the later rows of the same agents.
//!
//! Invariant: a row is published only when no earlier row of its agent in its classroom is quarantined.
use std::{collections::HashSet, hash::Hash, time::Duration};

use crate::{OutboxRow, StoreError};
use rollcall_base::names;

/// After how long a quarantined row is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How many rows, with all others of their agents, are released at once.
pub(super) const RELEASED_AT_ONCE: usize = 100;
/// Why a row is quarantined that could be published.
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
    /// The next row, in order: its agent and classroom, its id, and whether an earlier one of them is quarantined.
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

    /// The rows to publish, and the ids to quarantine with the reason.
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
