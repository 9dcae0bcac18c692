//! Parts of the stream that are read at once.
use crate::Incoming;

/// The size of a window in offsets. It grows while the events are small.
const MIN_WINDOW: u64 = 64;
const MAX_WINDOW: u64 = 1024;
const MAX_WINDOW_BYTES: usize = 256 * 1024;

/// How many offsets the next window has.
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

    /// Adapts the size to the bytes of the last window.
    pub(super) fn adapt(&mut self, bytes: usize) {
        self.0 = if bytes < MAX_WINDOW_BYTES { (self.0 * 2).min(MAX_WINDOW) } else { (self.0 / 2).max(1) };
    }
}

/// The next part of a backfill.
pub(super) struct Window {
    /// The events in order.
    pub(super) events: Vec<Incoming>,
    /// The offset through which there are no other events.
    pub(super) through: u64,
}
