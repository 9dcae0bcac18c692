//! Numbers that depend on the seed alone, on every machine and with every version of any crate.

use std::ops::Range;
use std::time::Duration;

/// The SplitMix64 generator.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number of this range.
    pub(super) fn within(&mut self, range: Range<usize>) -> usize {
        let span = range.end.saturating_sub(range.start).max(1) as u64;
        range.start + usize::try_from(self.next() % span).expect("less than a usize")
    }

    /// Returns a duration of a number of milliseconds in this range.
    pub(super) fn millis(&mut self, range: Range<usize>) -> Duration {
        Duration::from_millis(self.within(range) as u64)
    }

    /// Returns true with this chance, in per cent.
    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.within(0..100) < chance
    }

    /// Returns one of these values, chosen by their weights.
    pub(super) fn pick<T: Copy>(&mut self, of: &[(usize, T)]) -> T {
        let mut left = self.within(0..of.iter().map(|(weight, _)| weight).sum());
        for (weight, one) in of {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *one,
            }
        }
        of[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_the_same_every_time() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert_eq!(Random::new(0).next(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn what_weighs_nothing_is_never_picked() {
        let mut random = Random::new(1);
        let picked: Vec<u8> = (0..200).map(|_| random.pick(&[(1, 1), (0, 2), (3, 3)])).collect();
        assert!(picked.contains(&1) && picked.contains(&3) && !picked.contains(&2));
    }
}
