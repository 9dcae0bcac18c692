//! The pauses between attempts.
use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);

/// A pause that doubles each time, up to a limit. Each pause is shortened by a random part of up to a half, so that
/// senders that failed at the same time do not try again at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self { next: FIRST.min(max), max }
    }

    /// Makes the next pause the first one again.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    /// Returns the pause before the next attempt.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (2 * pause).min(self.max);
        pause.mul_f64(0.5 + 0.5 * random())
    }
}

/// Returns a random number from 0 to 1.
fn random() -> f64 {
    // Without randomness the pauses are long, which does no harm.
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

/// Returns a random number below `end`, which is not 0.
pub(super) fn below(end: usize) -> usize {
    getrandom::u32().map_or(0, |number| number as usize % end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for longest in [100, 200, 400, 800, 1000, 1000] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.pause();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
