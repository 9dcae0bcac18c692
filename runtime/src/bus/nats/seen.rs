//! What was delivered, where events may come out of order.
//!
//! nats-server 2.9 numbers an event under the stream's lock and republishes it after it: where several clients publish at
//! once, one in some hundred overtakes another. On one connection an event comes once all the same; it can come twice
//! only from the connection and from a filling, or from two fillings.
//!
//! Invariant: everything up to the floor was delivered, or was never for this node, or is later than a server that runs
//! ever is; above it, it is known for each event whether it was. Memory is bounded by [`MOST`].
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// An event whose predecessor is missing waits this long for it, where its reader wants them in order. What comes late
/// comes after some microseconds, unless the server's threads are waiting for a processor: this is several turns of the
/// scheduler, and less than anybody notices.
pub(super) const SETTLING: Duration = Duration::from_millis(25);
/// Offsets that are remembered one by one.
const MOST: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Seen {
    /// Nothing up to here is missing for certain: whatever else comes of that is a double.
    certain: u64,
    /// Nothing up to here is missing, unless it is later than [`Seen::age`] was told.
    floor: u64,
    /// Delivered above the floor.
    above: BTreeSet<u64>,
    /// Nothing at or below is yet to come.
    settled: u64,
    told: u64,
    /// The highest offset so far, by the time of its coming; both ascend, above the floor.
    marks: VecDeque<(Instant, u64)>,
}

impl Seen {
    /// Where everything up to here needs no delivery.
    pub(super) fn new(end: u64) -> Self {
        let (above, marks) = (BTreeSet::new(), VecDeque::new());
        Self { certain: end, floor: end, above, settled: end, told: end, marks }
    }

    /// Whether this event, which came at this time, was not delivered yet; now it is.
    pub(super) fn first(&mut self, offset: u64, at: Instant) -> bool {
        if offset <= self.certain || self.above.contains(&offset) {
            return false;
        }
        if offset > self.floor {
            let highest = self.highest();
            self.above.insert(offset);
            self.go_on();
            if offset > highest && offset > self.floor {
                self.marks.push_back((at, offset));
            }
            while self.above.len() > MOST {
                self.floor = self.above.pop_first().unwrap_or(self.floor);
                self.go_on();
            }
        }
        true
    }

    /// Time has passed: up to where the events are settled, where that has grown.
    pub(super) fn settle(&mut self, now: Instant) -> Option<u64> {
        let settled = self.marks.partition_point(|(at, _)| now.duration_since(*at) >= SETTLING);
        if let Some((_, offset)) = settled.checked_sub(1).map(|last| self.marks[last]) {
            self.settled = self.settled.max(offset);
        }
        self.go_on();
        let grown = self.settled > self.told;
        self.told = self.settled;
        grown.then_some(self.settled)
    }

    /// What was stored before something that came until then has come too, or will not be read again after a break. Not
    /// while the stream is read: what was delivered above the floor is known one by one, and the reading comes by it.
    pub(super) fn age(&mut self, until: Instant) {
        let aged = self.marks.partition_point(|(at, _)| *at <= until);
        if let Some((_, offset)) = aged.checked_sub(1).map(|last| self.marks[last]) {
            self.pass(offset);
        }
    }

    /// When [`Seen::settle`] has something to say, if nothing comes before.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.marks.partition_point(|(_, offset)| *offset <= self.settled);
        self.marks.get(next).map(|(at, _)| *at + SETTLING)
    }

    /// Everything up to here was read from the stream and delivered.
    pub(super) fn fill(&mut self, upto: u64) {
        self.certain = self.certain.max(upto);
        self.pass(upto);
    }

    /// Everything up to here has come, or was never for this node.
    pub(super) fn pass(&mut self, upto: u64) {
        self.floor = self.floor.max(upto);
        self.go_on();
    }

    /// Where filling starts.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The highest offset that was delivered or passed.
    pub(super) fn highest(&self) -> u64 {
        self.above.last().copied().unwrap_or(0).max(self.floor)
    }

    /// Moves the floor and what is settled over whatever follows without a gap.
    fn go_on(&mut self) {
        while self.above.first().is_some_and(|first| *first <= self.floor + 1) {
            let next = self.above.pop_first().map_or(self.floor, |first| first.max(self.floor));
            if self.certain == self.floor {
                self.certain = next;
            }
            self.floor = next;
        }
        while self.marks.front().is_some_and(|(_, offset)| *offset <= self.floor) {
            self.marks.pop_front();
        }
        self.settled = self.settled.max(self.floor);
        while self.above.contains(&(self.settled + 1)) {
            self.settled += 1;
        }
    }
}

#[cfg(test)]
mod tests;
