//! The ids from which the shards are read.
//!
//! A transaction that was left open keeps every deleted row in place, and a read from the front would step over all of
//! them each time, which takes half a second for two million. So a read begins after the rows that are known to be
//! gone.
//!
//! Invariant: ids do not commit in order, so a mark is used only [`SETTLED`] after it was set, which is longer than any
//! statement of this program may run. In addition, a shard is read from the front now and then.
use std::time::Duration;

use tokio::time::Instant;

use super::SHARDS as COUNT;

const SETTLED: Duration = Duration::from_secs(10);
/// The time between two reads from the front, each of another shard.
const ANEW: Duration = Duration::from_secs(60);

pub(super) struct Marks {
    /// The ids up to which no row is left.
    low: [i64; COUNT],
    /// No row was visible up to these ids at `since`.
    next: [i64; COUNT],
    since: Instant,
    /// The highest id that was read. All shards draw their ids from one sequence.
    highest: i64,
    anew: (Instant, usize),
}

impl Marks {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { low: [0; COUNT], next: [0; COUNT], since: now, highest: 0, anew: (now, 0) }
    }

    /// Returns the id from which each of these shards is read.
    pub(super) fn of(&self, shards: &[i16]) -> Vec<i64> {
        shards.iter().map(|shard| self.low[place(*shard)]).collect()
    }

    /// Forgets the mark of a shard that another relay had.
    pub(super) fn forget(&mut self, shard: i16) {
        (self.low[place(shard)], self.next[place(shard)]) = (0, 0);
    }

    /// Forgets all marks, after rows were put back under their old ids.
    pub(super) fn forget_all(&mut self) {
        (self.low, self.next) = ([0; COUNT], [0; COUNT]);
    }

    /// Records the rows that were read from each of these shards, from its mark on.
    pub(super) fn read(&mut self, shards: &[i16], rows: impl IntoIterator<Item = (i16, i64)>) {
        let mut first = [None; COUNT];
        for (shard, id) in rows {
            let first = first[place(shard)].get_or_insert(id);
            *first = id.min(*first);
            self.highest = self.highest.max(id);
        }
        if self.since.elapsed() < SETTLED {
            return;
        }
        self.since = Instant::now();
        for place in shards.iter().map(|shard| place(*shard)) {
            let gone = first[place].map_or(self.highest, |id| id - 1);
            self.low[place] = self.low[place].max(self.next[place].min(gone));
            self.next[place] = gone;
        }
        if self.anew.0.elapsed() >= ANEW {
            self.low[self.anew.1] = 0;
            self.anew = (Instant::now(), (self.anew.1 + 1) % COUNT);
        }
    }
}

fn place(shard: i16) -> usize {
    usize::from(shard.unsigned_abs()) % COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mark_waits_for_what_may_still_commit() {
        let mut marks = Marks::new();
        let after = async |marks: &mut Marks, rows: &[(i16, i64)]| {
            tokio::time::advance(SETTLED).await;
            marks.read(&[0, 1], rows.iter().copied());
            marks.of(&[0, 1])
        };
        assert_eq!(after(&mut marks, &[(0, 10), (0, 12), (1, 11)]).await, [0, 0]);
        assert_eq!(after(&mut marks, &[]).await, [9, 10], "what was visible then may still be there");
        // Row 5 committed late.
        assert_eq!(after(&mut marks, &[(1, 5), (0, 20)]).await, [12, 10]);
        let mut late = Marks::new();
        assert_eq!(after(&mut late, &[(0, 10)]).await, [0, 0]);
        assert_eq!(after(&mut late, &[(0, 3)]).await, [2, 10]);
        marks.forget(1);
        assert_eq!(marks.of(&[0, 1]), [12, 0]);
        marks.forget_all();
        assert_eq!(marks.of(&[0, 1]), [0, 0]);
    }
}
