//! Connections that are closed because events of their rooms are gone for good (PROTOCOL 2, "The view is whole"): their
//! clients then read the whole view again. They are closed over some seconds, so that their clients do not come back at once.
use std::time::{Duration, Instant};

use rollcall_websocket::SocketId;

/// A worker's connections that are to be closed.
pub(super) struct LostEventCloses {
    spread: Duration,
    waiting: Vec<SocketId>,
    /// When the last of them is closed.
    end: Instant,
    /// All that were due until then are closed.
    closed: Instant,
}

impl LostEventCloses {
    /// None yet. The connections of one [`LostEventCloses::add`] are closed over `spread`.
    pub(super) fn new(spread: Duration, now: Instant) -> Self {
        Self { spread, waiting: Vec::new(), end: now, closed: now }
    }

    /// Closes these over the next seconds.
    pub(super) fn add(&mut self, sockets: Vec<SocketId>, now: Instant) {
        if self.waiting.is_empty() {
            (self.closed, self.end) = (now, now + self.spread);
        }
        self.waiting.extend(sockets);
        self.waiting.sort_unstable();
        self.waiting.dedup();
    }

    /// The connections that are to be closed by now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<SocketId> {
        let left = self.end.saturating_duration_since(self.closed);
        let passed = now.saturating_duration_since(self.closed);
        self.closed = now;
        let share = if passed >= left { 1.0 } else { passed.as_secs_f64() / left.as_secs_f64() };
        let count = (self.waiting.len() as f64 * share).ceil() as usize;
        self.waiting.split_off(self.waiting.len() - count.min(self.waiting.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_closed_evenly_and_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let sockets = |from: u64, to: u64| (from..to).map(SocketId::from_bits).collect::<Vec<_>>();
        let mut closes = LostEventCloses::new(Duration::from_secs(5), start);
        assert!(closes.due(at(1)).is_empty());
        closes.add(sockets(0, 80), at(10));
        closes.add(sockets(50, 100), at(10));
        let due: Vec<_> = (11..=15).map(|seconds| closes.due(at(seconds))).collect();
        assert_eq!(due.iter().map(Vec::len).collect::<Vec<_>>(), [20; 5]);
        let mut all = due.concat();
        all.sort_unstable();
        assert_eq!(all, sockets(0, 100));
        assert!(closes.due(at(16)).is_empty());
    }
}
