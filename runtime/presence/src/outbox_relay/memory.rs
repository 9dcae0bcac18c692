//! What a relay remembers of rows that the outbox does not say.
//!
//! Invariant: a row that is known to be stored is not published again, even while the database cannot delete it.
use std::collections::HashSet;

use rollcall_schema::Nonce;
use rollcall_store::{Outbox, OutboxRow, StoreError};

/// How many rows are remembered as stored while the database does not delete them.
const REMEMBERED: usize = 50_000;

/// Identifies a row, even if the database was put back to an earlier time and gives out the id again.
pub(super) type Key = (i64, Nonce);

pub(super) fn key(row: &OutboxRow) -> Key {
    (row.id, row.nonce)
}

/// The memory of one relay.
#[derive(Default)]
pub(super) struct Memory {
    /// Rows that are stored, and perhaps not deleted, because the database went away in between.
    stored: HashSet<Key>,
    /// Rows that are stored, and deleted with the next call to the outbox.
    pub(super) owed: Vec<Key>,
    /// Rows that are older than [`super::HALF_WINDOW`], and are not in the stream.
    pub(super) absent: HashSet<Key>,
    /// Rows that the bus refused in the last batch, of which it stored others.
    refused: HashSet<Key>,
    /// The outbox's generation when `absent` was determined. A relay that had a shard in between may have published its
    /// rows.
    generation: u64,
}

impl Memory {
    /// Starts with a new connection, for which it is unknown what the last connection has deleted.
    pub(super) fn begin(&mut self) {
        self.absent.clear();
        self.stored.extend(std::mem::take(&mut self.owed));
    }

    /// Returns the rows that the bus refused in two successive batches, each of which had other rows that it stored. A
    /// stream may begin to refuse every message in the middle of a batch, which says nothing about the later rows of
    /// that batch.
    pub(super) fn refused_twice(&mut self, refused: Vec<(Key, String)>) -> Vec<(Key, String)> {
        let before = std::mem::take(&mut self.refused);
        let (twice, once): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(key, _)| before.contains(key));
        self.refused.extend(once.into_iter().map(|(key, _)| key));
        twice
    }

    /// Divides rows into those that are known to be stored, and the others.
    pub(super) fn part(&mut self, outbox: &dyn Outbox, rows: Vec<OutboxRow>) -> (Vec<Key>, Vec<OutboxRow>) {
        if self.generation != outbox.generation() {
            self.absent.clear();
        }
        if self.stored.is_empty() {
            return (Vec::new(), rows);
        }
        let (stored, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| self.stored.contains(&key(row)));
        (stored.iter().map(key).collect(), rows)
    }

    /// Records which of these rows the stream has stored. `generation` is the generation that the outbox had when the
    /// stream was asked.
    pub(super) fn looked(&mut self, generation: u64, found: impl Iterator<Item = (Key, bool)>) {
        self.generation = generation;
        self.absent.clear();
        for (key, is_stored) in found {
            if is_stored { &mut self.stored } else { &mut self.absent }.insert(key);
        }
    }

    /// Deletes rows that are stored. Until that has succeeded, none of them is published again.
    pub(super) async fn forget(&mut self, outbox: &mut dyn Outbox, stored: Vec<Key>) -> Result<(), StoreError> {
        if stored.is_empty() {
            return Ok(());
        }
        if self.stored.len() >= REMEMBERED {
            self.stored.clear();
        }
        self.stored.extend(&stored);
        outbox.delete(&stored.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await?;
        for key in &stored {
            self.stored.remove(key);
            self.absent.remove(key);
        }
        if outbox.owes() {
            self.owed.extend(stored);
        }
        Ok(())
    }
}
