//! An id of the outbox below which no row is left, so that a query does not step over rows that were deleted long ago.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// A transaction that drew an id this long ago has ended, because its statement may run for 1.5 s.
const SETTLED: Duration = Duration::from_secs(30);

/// An id at or below which no row is left.
#[derive(Debug, Default)]
pub(super) struct Floor(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    floor: i64,
    /// The last drawn id at some times since.
    drawn: VecDeque<(Instant, i64)>,
}

impl Floor {
    pub(super) fn get(&self) -> i64 {
        self.0.lock().floor
    }

    /// Records a query that began `at` and found that `last` was the last drawn id, and `oldest` the lowest id above
    /// the floor.
    pub(super) fn seen(&self, at: Instant, last: i64, oldest: Option<i64>) {
        let mut ids = self.0.lock();
        // One sample in a second is enough.
        if ids.drawn.back().is_none_or(|(sampled, _)| at.duration_since(*sampled) >= Duration::from_secs(1)) {
            ids.drawn.push_back((at, last));
        }
        while let Some((_, settled)) =
            ids.drawn.front().copied().filter(|(then, _)| at.duration_since(*then) >= SETTLED)
        {
            ids.drawn.pop_front();
            let below_oldest = oldest.map_or(settled, |oldest| settled.min(oldest - 1));
            ids.floor = ids.floor.max(below_oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_rises_to_what_was_drawn_long_ago_and_stays_below_what_waits() {
        let (floor, start) = (Floor::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        floor.seen(start, 100, None);
        floor.seen(after(29), 200, None);
        assert_eq!(floor.get(), 0);
        floor.seen(after(30), 300, Some(90));
        assert_eq!(floor.get(), 89);
        floor.seen(after(60), 400, None);
        assert_eq!(floor.get(), 300);
        floor.seen(after(100), 500, Some(450));
        assert_eq!(floor.get(), 400);
    }
}
