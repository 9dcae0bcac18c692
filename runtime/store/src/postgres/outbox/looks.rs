//! Chooses the shards for each read, because a shard costs a read about as much as several rows.
//!
//! Invariant: a shard with a row is read within a second, even without a wake-up.
use std::time::Duration;

use rollcall_schema::Shards;
use tokio::time::Instant;

use super::super::shard_claims::set;

/// The time between two reads of all shards.
const ALL_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Looks {
    /// The shards in which the last read found rows, so there may be more.
    found: Shards,
    /// When all shards were last read. `None` if the next read must read all.
    all_at: Option<Instant>,
}

impl Looks {
    /// Returns the shards for the next read: those with new rows, and those that had rows. If there are none of either,
    /// all shards are returned.
    pub(super) fn next(&mut self, held: &[i16], woken: Shards) -> Vec<i16> {
        let some = woken.with(self.found);
        let looked_at: Vec<i16> = held.iter().copied().filter(|shard| some.meets(set(*shard))).collect();
        if !looked_at.is_empty() && self.all_at.is_some_and(|at| at.elapsed() < ALL_EVERY) {
            return looked_at;
        }
        self.all_at = Some(Instant::now());
        held.to_vec()
    }

    /// Records the shards in which a read found rows.
    pub(super) fn found(&mut self, shards: impl Iterator<Item = i16>) {
        self.found = shards.map(set).collect();
    }

    /// Makes the next read include all shards.
    pub(super) fn at_all(&mut self) {
        self.all_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_are_looked_at_once_a_second() {
        let held = [1, 2, 5];
        let mut looks = Looks::default();
        assert_eq!(looks.next(&held, set(5)), held);
        looks.found([2].into_iter());
        assert_eq!(looks.next(&held, set(5).with(set(7))), [2, 5]);
        looks.found([].into_iter());
        assert_eq!(looks.next(&held, set(1)), [1]);
        assert_eq!(looks.next(&held, Shards::default()), held, "nothing is known");
        tokio::time::advance(ALL_EVERY).await;
        assert_eq!(looks.next(&held, set(1)), held);
        assert_eq!(looks.next(&held, set(1)), [1]);
        looks.at_all();
        assert_eq!(looks.next(&held, set(1)), held);
    }
}
