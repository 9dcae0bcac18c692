//! Which shards a read looks at: each costs it about as much as several rows.
//!
//! Invariant: a shard with a row is looked at within a second, whether anybody has said that the row is there or not.
use std::time::Duration;

use rollcall_schema::Shards;
use tokio::time::Instant;

use super::super::shard_claims::set;

/// The time between two reads that look at all.
const ALL_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Looks {
    /// The read before found rows there: there may be more.
    found: Shards,
    /// When a read looked at all; none where the next one is to.
    all_at: Option<Instant>,
}

impl Looks {
    /// What the next read looks at: where there are new rows, and where there were some; all of them where neither is known.
    pub(super) fn next(&mut self, held: &[i16], woken: Shards) -> Vec<i16> {
        let some = woken.with(self.found);
        let looked_at: Vec<i16> = held.iter().copied().filter(|shard| some.meets(set(*shard))).collect();
        if !looked_at.is_empty() && self.all_at.is_some_and(|at| at.elapsed() < ALL_EVERY) {
            return looked_at;
        }
        self.all_at = Some(Instant::now());
        held.to_vec()
    }

    /// The read found rows in these.
    pub(super) fn found(&mut self, shards: impl Iterator<Item = i16>) {
        self.found = shards.map(set).collect();
    }

    /// The next read looks at all.
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
