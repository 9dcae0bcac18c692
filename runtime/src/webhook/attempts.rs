//! Decides how pending events are sent, and when they are sent again.
use std::time::Duration;

use super::backoff::Backoff;

/// How often pending events are sent packed before each classroom's events are sent alone.
const PACKED_ATTEMPTS: u32 = 2;

/// How pending events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Events go in as few requests as possible.
    Packed,
    /// Each request has the events of one classroom.
    Alone,
    /// A few requests with one classroom each, because the receiver seems to be away.
    Probe,
}

/// What the last attempts say about the next attempt.
pub(super) struct Attempts {
    pub(super) mode: Mode,
    failed: u32,
    backoff: Backoff,
}

impl Attempts {
    pub(super) fn new(max_pause: Duration) -> Self {
        Self { mode: Mode::Packed, failed: 0, backoff: Backoff::new(max_pause) }
    }

    /// Records that all requests were accepted.
    pub(super) fn succeeded(&mut self) {
        (self.mode, self.failed) = (Mode::Packed, 0);
        self.backoff.reset();
    }

    /// Records that some requests, or all, were refused.
    pub(super) fn failed(&mut self, some_taken: bool) {
        self.failed += 1;
        self.mode = match some_taken {
            _ if self.failed < PACKED_ATTEMPTS => Mode::Packed,
            true => Mode::Alone,
            false => Mode::Probe,
        };
        if some_taken {
            self.backoff.reset();
        }
    }

    /// Returns the pause before the next attempt.
    pub(super) fn pause(&mut self) -> Duration {
        self.backoff.pause()
    }
}
