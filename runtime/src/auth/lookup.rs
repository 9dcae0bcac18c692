//! Decides whether a token with an unknown key may cause a load of its issuer's keys, and what is known of the key if
//! no load is allowed.
//!
//! Invariant: a key is permanently unknown only if it was missing in a load that began after a token first named it. A
//! client that invents names of keys uses up the loads, and the only effect is that answers become temporary.
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

/// The largest burst of loads. With more than one load, a rotation is noticed at once even after a forged token.
const BURST: u32 = 5;
/// How many names of keys are remembered. When there are more, all are forgotten.
const MAX_NAMES: usize = 1024;

/// The result for a token with an unknown key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The keys were loaded just now.
    Loaded,
    /// The keys were loaded after a token first named the key, and did not contain the key.
    Known,
    /// The keys could not be loaded, or were loaded too recently.
    Unavailable,
}

/// The loads of one issuer's keys that tokens may still cause.
#[derive(Debug)]
pub(super) struct Budget {
    /// How many loads were left at the time `at`.
    left: f64,
    at: Instant,
    /// When the last successful load began.
    loaded: Option<Instant>,
    /// When each key's name was first refused because no load was left.
    named: HashMap<u64, Instant>,
    hasher: RandomState,
}

impl Budget {
    pub(super) fn new() -> Self {
        let (named, hasher) = (HashMap::new(), RandomState::new());
        Self { left: f64::from(BURST), at: Instant::now(), loaded: None, named, hasher }
    }

    /// Takes one load. Returns false if none is left.
    pub(super) fn take(&mut self, cooldown: Duration) -> bool {
        let now = Instant::now();
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() / cooldown.as_secs_f64();
        self.left = (self.left + refilled).min(f64::from(BURST));
        self.at = now;
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }

    /// Records that a load that began at `began` succeeded.
    pub(super) fn loaded(&mut self, began: Instant) {
        self.loaded = self.loaded.max(Some(began));
    }

    /// Returns what is known of a key if no load is left.
    pub(super) fn without_load(&mut self, kid: Option<&str>) -> Lookup {
        let name = self.hasher.hash_one(kid);
        if self.named.len() >= MAX_NAMES && !self.named.contains_key(&name) {
            self.named.clear();
        }
        let first = *self.named.entry(name).or_insert_with(Instant::now);
        if self.loaded.is_some_and(|loaded| loaded > first) { Lookup::Known } else { Lookup::Unavailable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(60);

    fn taken(budget: &mut Budget) -> usize {
        (0..100).filter(|_| budget.take(COOLDOWN)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_at_once_then_one_in_a_while() {
        let mut budget = Budget::new();
        assert_eq!(taken(&mut budget), 5);
        tokio::time::advance(COOLDOWN * 2).await;
        assert_eq!(taken(&mut budget), 2);
        tokio::time::advance(COOLDOWN * 100).await;
        assert_eq!(taken(&mut budget), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_unknown_permanently_once_a_later_load_has_not_brought_it() {
        let mut budget = Budget::new();
        budget.loaded(Instant::now());
        tokio::time::advance(COOLDOWN).await;
        assert_eq!(budget.without_load(Some("k")), Lookup::Unavailable);
        tokio::time::advance(COOLDOWN).await;
        assert_eq!(budget.without_load(Some("k")), Lookup::Unavailable, "nothing was loaded since");
        budget.loaded(Instant::now());
        assert_eq!(budget.without_load(Some("k")), Lookup::Known);
        assert_eq!(budget.without_load(Some("other")), Lookup::Unavailable);
        assert_eq!(budget.without_load(None), Lookup::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_names_are_made_up_few_are_kept() {
        let mut budget = Budget::new();
        for number in 0..10 * MAX_NAMES {
            assert_eq!(budget.without_load(Some(&number.to_string())), Lookup::Unavailable);
            assert!(budget.named.len() <= MAX_NAMES);
        }
    }
}
