//! A part of what is read of the stream at once.
use crate::Incoming;

/// Offsets in a window: few at first, more while the events are small.
const MIN_WINDOW: u64 = 64;
const MAX_WINDOW: u64 = 1024;
const MAX_WINDOW_BYTES: usize = 256 * 1024;

/// How many offsets are read at once.
pub(super) struct WindowSize(u64);

impl Default for WindowSize {
    fn default() -> Self {
        Self(MIN_WINDOW)
    }
}

impl WindowSize {
    pub(super) fn events(&self) -> u64 {
        self.0
    }

    /// Adapts to the bytes of the last window.
    pub(super) fn adapt(&mut self, bytes: usize) {
        self.0 = if bytes < MAX_WINDOW_BYTES { (self.0 * 2).min(MAX_WINDOW) } else { (self.0 / 2).max(1) };
    }
}

/// The next part of a backfill.
pub(super) struct Window {
    /// In order.
    pub(super) events: Vec<Incoming>,
    /// There are no other events up to here.
    pub(super) through: u64,
}
