//! A limit on one kind of log line, so that clients that cause it cannot fill the log.
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The log's target for lines that must not be left out, because they say which operator changed what.
pub const AUDIT: &str = "rollcall::audit";

/// The time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// Allows one line in each interval, and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl LogLimit {
    /// Creates a limit of one line in ten seconds.
    pub fn new() -> Self {
        Self { interval: INTERVAL, state: Mutex::default() }
    }

    /// Returns whether a line may be written now. If so, returns how many lines were left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_in_an_interval_and_says_how_many_did_not() {
        let (limit, start) = (LogLimit::new(), Instant::now());
        assert_eq!(limit.pass_at(start), Some(0));
        for _ in 0..7 {
            assert_eq!(limit.pass_at(start + INTERVAL / 2), None);
        }
        assert_eq!(limit.pass_at(start + INTERVAL), Some(7));
        assert_eq!(limit.pass_at(start + INTERVAL * 2), Some(0));
    }
}
