//! A server's clock. A script compares it with its deadline, and does nothing if it runs too late.
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The server's answer to TIME: seconds and microseconds.
pub(super) type Time = (u64, u64);

/// The time of the server's clock, and when its answer came. Since then the server's clock has advanced by at least as
/// much as this process's.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<(Instant, Duration)>>);

impl Clock {
    /// Records an answer that has just arrived.
    pub(super) fn heard(&self, (seconds, micros): Time) {
        let said = Duration::from_secs(seconds) + Duration::from_micros(micros);
        *self.0.lock() = Some((Instant::now(), said));
    }

    /// Returns a time of the server's clock in microseconds. It is the time at `then`, or an earlier one.
    pub(super) fn at(&self, then: Instant) -> u128 {
        let heard = *self.0.lock();
        heard.map_or(0, |(at, said)| (said + then.saturating_duration_since(at)).as_micros())
    }
}
