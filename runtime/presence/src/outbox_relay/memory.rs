//! What a relay knows of rows, beyond what is in the outbox.
//!
//! Invariant: a row that is known to be stored is not published again, also while the database does not delete it.
use std::collections::HashSet;

use rollcall_schema::Nonce;
use rollcall_store::{Outbox, OutboxRow, StoreError};

/// Rows that are remembered as stored while the database does not delete them.
const REMEMBERED: usize = 50_000;

/// A row, also of a database that was put back and gives its id again.
pub(super) type Key = (i64, Nonce);

pub(super) fn key(row: &OutboxRow) -> Key {
    (row.id, row.nonce)
}

/// See the module.
#[derive(Default)]
pub(super) struct Memory {
    /// Stored, and perhaps not deleted: the database went away in between.
    stored: HashSet<Key>,
    /// Stored, and deleted with the outbox's next call.
    pub(super) owed: Vec<Key>,
    /// Older than [`super::HALF_WINDOW`], and not in the stream.
    pub(super) absent: HashSet<Key>,
    /// Refused by the bus in the last batch, which stored others.
    refused: HashSet<Key>,
    /// The outbox's generation when `absent` was looked for: whoever had a shard in between may have published its rows.
    generation: u64,
}

impl Memory {
    /// The relay begins with a new connection, and does not know what the last one has deleted.
    pub(super) fn begin(&mut self) {
        self.absent.clear();
        self.stored.extend(std::mem::take(&mut self.owed));
    }

    /// Those that the bus refused in two batches one after the other, each of which stored others. A stream may begin to refuse
    /// everything in the middle of a batch: that says nothing of the rows that came later in it.
    pub(super) fn refused_twice(&mut self, refused: Vec<(Key, String)>) -> Vec<(Key, String)> {
        let before = std::mem::take(&mut self.refused);
        let (twice, once): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(key, _)| before.contains(key));
        self.refused.extend(once.into_iter().map(|(key, _)| key));
        twice
    }

    /// Parts rows into those that are known to be stored, and the others.
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

    /// The stream was asked for these, and has stored them or not. `generation`: the outbox's when it was asked.
    pub(super) fn looked(&mut self, generation: u64, found: impl Iterator<Item = (Key, bool)>) {
        self.generation = generation;
        self.absent.clear();
        for (key, is_stored) in found {
            if is_stored { &mut self.stored } else { &mut self.absent }.insert(key);
        }
    }

    /// Deletes rows that are stored; until that has succeeded, none of them is published again.
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
