//! A server's clock, with which a script compares its deadline, so that it does nothing when it comes too late.
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The server's answer to TIME: seconds, and microseconds beyond them.
pub(super) type Time = (u64, u64);

/// What the server's clock said, and when its answer came. Since then it has advanced by at least as much as ours.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<(Instant, Duration)>>);

impl Clock {
    /// Notes an answer that has just arrived.
    pub(super) fn heard(&self, (seconds, micros): Time) {
        let said = Duration::from_secs(seconds) + Duration::from_micros(micros);
        // An option is whole after any panic.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), said));
    }

    /// The server's time, in microseconds, at `then` or earlier.
    pub(super) fn at(&self, then: Instant) -> u128 {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map_or(0, |(at, said)| (said + then.saturating_duration_since(at)).as_micros())
    }
}
