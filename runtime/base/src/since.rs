//! The time since a moment, by two clocks: the monotonic clock stops while a virtual machine is paused, and the wall
//! clock may be set.
//!
//! Invariant: an age counts as small only if both clocks say so.
use std::time::{Duration, Instant, SystemTime};

/// A moment of this process.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    monotonic: Instant,
    wall: SystemTime,
}

impl Since {
    /// Returns the present moment.
    #[must_use]
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Returns whether less than this time has passed for certain. If the wall clock was set back, that is not certain.
    #[must_use]
    pub fn is_within(&self, age: Duration) -> bool {
        self.monotonic.elapsed() < age && self.wall.elapsed().is_ok_and(|elapsed| elapsed < age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_clock_says_that_it_is_over() {
        let (now, minute) = (Since::now(), Duration::from_secs(60));
        assert!(now.is_within(minute) && !now.is_within(Duration::ZERO));
        let paused = Since { wall: now.wall - minute, ..now };
        let set_back = Since { wall: now.wall + minute, ..now };
        assert!(!paused.is_within(minute) && !set_back.is_within(minute));
    }
}
