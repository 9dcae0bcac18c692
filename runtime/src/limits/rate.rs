//! Rates that need eight bytes each: the time at which the next event would be due if all events came evenly (GCRA).
//!
//! Invariant: in any span of time, at most `per_second` times its length plus one burst of events pass. A refused event
//! uses up nothing.
use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A rate and a burst. Times are microseconds since a start that the caller chooses.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The interval between two events that come evenly.
    interval: u64,
    /// How far the due time may be ahead of the clock.
    window: u64,
}

/// A rate that may change while others take from it. It is as cheap to read as a rate that does not change.
#[derive(Debug)]
pub struct CurrentRate {
    interval: AtomicU64,
    window: AtomicU64,
}

impl CurrentRate {
    /// Creates a rate that may change.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { interval: AtomicU64::new(rate.interval), window: AtomicU64::new(rate.window) }
    }

    /// Returns the current rate. If the rate is just changing, the result may have one value of each rate.
    #[must_use]
    pub fn get(&self) -> Rate {
        Rate { interval: self.interval.load(Relaxed), window: self.window.load(Relaxed) }
    }

    /// Changes the rate.
    pub fn set(&self, rate: Rate) {
        self.interval.store(rate.interval, Relaxed);
        self.window.store(rate.window, Relaxed);
    }
}

/// How much of a rate is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(u64);

impl Rate {
    /// Creates a rate of `per_second` events with bursts of `burst`.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_u64.div_ceil(per_second.max(1).into());
        Self { interval, window: interval * u64::from(burst.max(1)) }
    }

    /// Creates a rate of one event in this time with bursts of `burst`.
    #[must_use]
    pub fn every(interval: Duration, burst: u32) -> Self {
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX / 2).max(1);
        Self { interval, window: interval.saturating_mul(burst.max(1).into()) }
    }

    /// Takes one event, `now` after the start.
    ///
    /// # Errors
    /// Returns the time until the next event passes if this event is refused.
    pub fn take(self, bucket: &mut Bucket, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX / 2);
        let next = bucket.0.max(now) + self.interval;
        match (next - now).checked_sub(self.window) {
            Some(0) | None => {
                *bucket = Bucket(next);
                Ok(())
            }
            Some(wait) => Err(Duration::from_micros(wait)),
        }
    }
}

/// How many buckets a row has.
const ROW: usize = 1 << 15;

/// Buckets for any number of keys in fixed memory. Each key has one bucket in each of the two rows, and is refused only
/// if both are used up. So a busy key affects another key only if the two keys share both buckets, as one pair in a
/// billion does.
#[derive(Debug)]
pub struct Sketch {
    rows: [Box<[AtomicU64]>; 2],
    hasher: RandomState,
}

impl Sketch {
    /// Creates empty buckets, which need 512 KiB.
    #[must_use]
    pub fn new() -> Self {
        let row = || (0..ROW).map(|_| AtomicU64::new(0)).collect();
        Self { rows: [row(), row()], hasher: RandomState::new() }
    }

    /// Takes one event of a key.
    ///
    /// # Errors
    /// Returns the time until the next event of the key passes if this event is refused.
    pub fn take(&self, rate: Rate, key: impl Hash, now: Duration) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(key);
        let places = [hash as usize % ROW, (hash >> 32) as usize % ROW];
        let mut verdict = Err(Duration::MAX);
        for (row, place) in self.rows.iter().zip(places) {
            // Two events at the same time may count as one, because the limit need not be exact.
            let mut bucket = Bucket(row[place].load(Relaxed));
            match (rate.take(&mut bucket, now), verdict) {
                (Ok(()), _) => {
                    row[place].store(bucket.0, Relaxed);
                    verdict = Ok(());
                }
                (Err(wait), Err(other)) => verdict = Err(wait.min(other)),
                (Err(_), Ok(())) => {}
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let (rate, mut bucket) = (Rate::new(10, 5), Bucket::default());
        let passed = (0..20).filter(|_| rate.take(&mut bucket, at(0)).is_ok()).count();
        assert_eq!(passed, 5);
        assert_eq!(rate.take(&mut bucket, at(0)), Err(Duration::from_millis(100)));
        let passed = (0..10_000).filter(|millis| rate.take(&mut bucket, at(*millis)).is_ok()).count();
        assert!((98..=101).contains(&passed), "{passed} in 10 s");
        let passed = (0..20).filter(|_| rate.take(&mut bucket, at(20_000)).is_ok()).count();
        assert_eq!(passed, 5, "after a rest");
    }

    #[test]
    fn rates_from_one_to_a_million_pass_something() {
        for per_second in [1, 50, 20_000, 1_000_000] {
            let (rate, mut bucket) = (Rate::new(per_second, per_second), Bucket::default());
            let passed = (0..2 * per_second).filter(|_| rate.take(&mut bucket, at(7)).is_ok()).count();
            assert_eq!(passed, per_second as usize);
        }
    }

    #[test]
    fn a_busy_key_hurts_no_other() {
        let (rate, sketch) = (Rate::new(10, 20), Sketch::new());
        let passed = (0..1_000).filter(|_| sketch.take(rate, "busy", at(5)).is_ok()).count();
        assert_eq!(passed, 20);
        for other in 0..2_000 {
            assert_eq!(sketch.take(rate, other, at(5)), Ok(()), "{other}");
        }
    }
}
