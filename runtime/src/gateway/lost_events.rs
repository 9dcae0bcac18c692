//! Closes connections because events of their rooms are lost (PROTOCOL 2, "The view is whole"). Their clients then read
//! the whole state again. The connections are closed over some seconds, so that the clients do not all come back at
//! once.
use std::time::{Duration, Instant};

use rollcall_websocket::SocketId;

/// The connections of a worker that are to be closed.
pub(super) struct LostEventCloses {
    spread: Duration,
    waiting: Vec<SocketId>,
    /// When the last connection is closed.
    end: Instant,
    /// The time through which all due connections were closed.
    closed: Instant,
}

impl LostEventCloses {
    /// Creates an empty list. The connections of one [`LostEventCloses::add`] are closed over `spread`.
    pub(super) fn new(spread: Duration, now: Instant) -> Self {
        Self { spread, waiting: Vec::new(), end: now, closed: now }
    }

    /// Adds connections. They are closed evenly until `spread` after the first waiting connection was added.
    pub(super) fn add(&mut self, sockets: Vec<SocketId>, now: Instant) {
        if self.waiting.is_empty() {
            (self.closed, self.end) = (now, now + self.spread);
        }
        self.waiting.extend(sockets);
        self.waiting.sort_unstable();
        self.waiting.dedup();
    }

    /// Returns the connections that are to be closed by now.
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
