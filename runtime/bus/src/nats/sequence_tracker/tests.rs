#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn at(start: Instant, ms: u32) -> Instant {
    start + MS * ms
}

/// Returns a tracker for which every event up to `end` was delivered, and the stream has confirmed a much later end.
fn confirmed(end: u64) -> SequenceTracker {
    let mut tracker = SequenceTracker::new(end);
    tracker.confirm(u64::MAX / 2, Instant::now());
    tracker
}

fn first(tracker: &mut SequenceTracker, offset: u64, at: Instant) -> bool {
    tracker.record(offset, offset, at) == Arrival::New
}

#[test]
fn what_the_stream_has_not_told_moves_nothing() {
    let start = Instant::now();
    let mut tracker = SequenceTracker::new(7);
    assert!(first(&mut tracker, 9_000, start) && first(&mut tracker, 8, start));
    tracker.expire(at(start, 60_000));
    assert_eq!((tracker.settle(at(start, 60_000)), tracker.due(), tracker.floor()), (None, None, 7));
    assert_eq!(tracker.confirm(10, start), 1, "one is not the stream's");
    assert_eq!((tracker.settle(at(start, 60_000)), tracker.floor(), tracker.highest()), (Some(8), 8, 8));
    assert!(first(&mut tracker, 9, start) && first(&mut tracker, 10, start));
    assert_eq!(tracker.floor(), 10);
}

#[test]
fn a_number_that_somebody_took_before_the_stream_gave_it_swallows_nothing() {
    let start = Instant::now();
    let mut tracker = SequenceTracker::new(7);
    assert_eq!(tracker.record(8, 1, start), Arrival::New, "forged");
    tracker.confirm(8, start);
    assert_eq!(tracker.record(8, 2, start), Arrival::Conflicting, "also when the floor has passed it");
    assert_eq!(tracker.record(8, 2, start), Arrival::Duplicate);
    tracker.expire(start);
    assert_eq!(tracker.record(8, 2, start), Arrival::Stale);
}

#[test]
fn what_follows_without_a_gap_is_settled_at_once() {
    let now = Instant::now();
    let mut tracker = confirmed(7);
    assert!(
        first(&mut tracker, 8, now)
            && first(&mut tracker, 9, now)
            && !first(&mut tracker, 8, now)
            && !first(&mut tracker, 7, now)
    );
    assert_eq!((tracker.settle(now), tracker.due(), tracker.floor()), (Some(9), None, 9));
    assert_eq!(tracker.settle(now), None, "told once");
}

#[test]
fn a_gap_settles_when_it_is_closed_or_after_a_while() {
    let start = Instant::now();
    let mut tracker = confirmed(0);
    assert!(first(&mut tracker, 2, start) && first(&mut tracker, 4, at(start, 20)));
    assert_eq!((tracker.settle(at(start, 24)), tracker.due()), (None, Some(start + SETTLING)));
    assert!(first(&mut tracker, 1, at(start, 24)));
    assert_eq!(tracker.settle(at(start, 24)), Some(2), "closed");
    assert_eq!((tracker.settle(at(start, 44)), tracker.due()), (None, Some(at(start, 45))));
    assert_eq!((tracker.settle(at(start, 45)), tracker.due()), (Some(4), None), "waited for");
    assert!(first(&mut tracker, 3, at(start, 46)), "later still, and not lost");
    assert!(first(&mut tracker, 6, at(start, 46)) && first(&mut tracker, 5, at(start, 46)));
    assert_eq!(tracker.settle(at(start, 46)), Some(6));
    assert_eq!(tracker.floor(), 6);
}

#[test]
fn the_floor_follows_what_has_aged() {
    let start = Instant::now();
    let mut tracker = confirmed(0);
    assert!(first(&mut tracker, 5, start) && first(&mut tracker, 9, at(start, 500)));
    tracker.settle(at(start, 60_000));
    assert_eq!(tracker.floor(), 0, "not by the clock alone");
    tracker.expire(at(start, 499));
    assert_eq!((tracker.floor(), tracker.highest()), (5, 9));
    tracker.skip_to(8);
    assert_eq!(tracker.floor(), 9);
    assert!(first(&mut tracker, 3, at(start, 501)), "not read from the stream: it was not delivered");
    tracker.filled_through(12);
    assert!(!first(&mut tracker, 11, at(start, 501)) && first(&mut tracker, 13, at(start, 501)));
    assert_eq!((tracker.floor(), tracker.settle(at(start, 501))), (13, Some(13)));
}

#[test]
fn however_long_a_backfill_takes_what_was_delivered_before_it_is_known() {
    let start = Instant::now();
    let mut tracker = confirmed(0);
    assert!(first(&mut tracker, 5, start) && first(&mut tracker, 9, start));
    // The connection is gone for a minute. Then the stream is read in two pieces.
    let later = at(start, 60_000);
    assert!(first(&mut tracker, 1, later));
    tracker.filled_through(3);
    tracker.settle(later);
    assert_eq!(tracker.floor(), 3, "where the second piece fails, it is read again from here");
    assert!(
        first(&mut tracker, 4, later)
            && !first(&mut tracker, 5, later)
            && first(&mut tracker, 8, later)
            && !first(&mut tracker, 9, later)
    );
}

#[test]
fn what_is_remembered_is_bounded() {
    let start = Instant::now();
    let mut tracker = confirmed(0);
    for offset in 1..=3 * MAX_REMEMBERED as u64 {
        assert!(first(&mut tracker, offset * 2, start));
    }
    assert!(tracker.recent.len() <= MAX_REMEMBERED && tracker.marks.len() <= 3 * MAX_REMEMBERED);
    assert!(first(&mut tracker, 6 * MAX_REMEMBERED as u64 - 1, start), "the latest are known one by one");
}

/// Streams of which some events are this node's. For each of these, by how many milliseconds it is republished late.
fn streams() -> impl Strategy<Value = Vec<Option<u32>>> {
    let lateness = prop_oneof![4 => Just(0u32), 2 => 0..20u32, 1 => 0..900u32];
    prop::collection::vec(prop_oneof![2 => lateness.prop_map(Some), 1 => Just(None)], 1..200)
}

proptest! {
    /// The stream grows by an event every 3 ms, and the connection breaks at some of these moments. Events that are
    /// under way are lost with it, and the stream is read from the floor.
    #[test]
    fn each_event_is_delivered_once(stream in streams(), breaks in prop::collection::btree_set(0..800u32, 0..6)) {
        let start = Instant::now();
        let mut tracker = confirmed(0);
        let mut delivered = Vec::new();
        let mut deliver = |tracker: &mut SequenceTracker, offset: u64, now| if first(tracker, offset, now) { delivered.push(offset) };
        let stored = |place: usize| place as u32 * 3;
        let mut coming: Vec<(u32, u64)> = Vec::new();
        let (mut place, mut told) = (0, 0);
        for ms in 0..stored(stream.len()) + 1000 {
            let now = at(start, ms);
            if place < stream.len() && stored(place) == ms {
                place += 1;
                coming.extend(stream[place - 1].map(|late| (ms + late, place as u64)));
            }
            if breaks.contains(&ms) {
                coming.clear();
                for offset in tracker.floor() + 1..=place as u64 {
                    if stream[offset as usize - 1].is_some() {
                        deliver(&mut tracker, offset, now);
                    }
                }
                tracker.filled_through(place as u64);
            }
            for (_, offset) in coming.extract_if(.., |(when, _)| *when == ms) {
                deliver(&mut tracker, offset, now);
            }
            if let Some(aged) = ms.checked_sub(1000) {
                tracker.expire(at(start, aged));
            }
            if let Some(settled) = tracker.settle(now) {
                prop_assert!(settled > told && settled <= tracker.highest());
                told = settled;
                // If an event comes no later than readers wait for it, its offset does not settle before it has come.
                prop_assert!(coming.iter().all(|(when, offset)| *offset > settled || when - stored(*offset as usize - 1) >= 22));
            }
        }
        let wanted: Vec<u64> = (1..).zip(&stream).filter(|(_, late)| late.is_some()).map(|(offset, _)| offset).collect();
        delivered.sort_unstable();
        prop_assert_eq!(delivered, wanted);
        prop_assert_eq!(tracker.due(), None);
    }
}
