//! Rows of the outbox that cannot be published, and what comes after them.
//!
//! Invariant: a row is published only when no earlier row of its agent in its classroom is set aside.
use std::{collections::HashSet, hash::Hash, time::Duration};

use super::{OutboxRow, StoreError};
use rollcall_base::names;

/// When a row that was set aside is tried again.
pub(super) const RETRY_ASIDE: Duration = Duration::from_secs(60);
/// Rows whose agents are tried again at once.
pub(super) const PUT_BACK_MOST: usize = 100;
/// Behind one that was set aside.
const LATER: &str = "an earlier event of this agent in this classroom was set aside";

/// Rows of one read, sorted into those to publish and those to set aside.
pub(super) struct Sorted<K> {
    keys: HashSet<K>,
    rows: Vec<OutboxRow>,
    later: Vec<i64>,
    unreadable: Vec<(i64, String)>,
}

impl<K> Default for Sorted<K> {
    fn default() -> Self {
        Self { keys: HashSet::new(), rows: Vec::new(), later: Vec::new(), unreadable: Vec::new() }
    }
}

impl<K: Eq + Hash> Sorted<K> {
    /// The next row, in order: its agent and classroom, its id, and whether an earlier one of them was set aside before.
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

    /// The rows to publish, and the ids to set aside with the reason.
    pub(super) fn end(self) -> (Vec<OutboxRow>, Vec<(Vec<i64>, String)>) {
        let count = |reason, count: usize| {
            metrics::counter!(names::OUTBOX_SET_ASIDE, "reason" => reason).increment(count as u64);
        };
        let mut aside: Vec<_> = self.unreadable.into_iter().map(|(id, why)| (vec![id], why)).collect();
        if !aside.is_empty() {
            count("unreadable", aside.len());
        }
        if !self.later.is_empty() {
            count("later", self.later.len());
            aside.push((self.later, LATER.to_owned()));
        }
        (self.rows, aside)
    }
}
