//! Tracks which events were delivered, although they may arrive out of order.
//!
//! nats-server 2.9 numbers an event under the stream's lock and republishes it after releasing it: if several clients
//! publish at once, about one event in a hundred overtakes another. One connection never brings an event twice;
//! duplicates come only from a connection and a backfill, or from two backfills.
//!
//! Invariant: every event up to the floor was delivered, was not for this node, or is later than an event of a running
//! server can be. Above the floor the tracker knows for each event whether it was delivered. The floor never passes the
//! end that the stream has confirmed, so a forged sequence number does not move it. If a forged event took a number
//! before the stream gave it to an event, the two differ in content, and the stream's event is delivered, too. Memory
//! is bounded by [`MAX_REMEMBERED`].
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// How long a reader that wants the stream's order waits for a missing event before the next one. A late event is late
/// by microseconds, unless the server's threads wait for a CPU. This time is several time slices of the scheduler, and
/// too short for people to notice.
pub(super) const SETTLING: Duration = Duration::from_millis(25);
/// The maximum number of offsets that are remembered one by one.
const MAX_REMEMBERED: usize = 64 * 1024;

/// The offsets that were delivered.
#[derive(Debug)]
pub(super) struct SequenceTracker {
    /// It is certain that no event up to this offset is missing. Any further event from there is a duplicate.
    certain: u64,
    /// No event up to this offset is missing, unless it is later than [`SequenceTracker::expire`] allows.
    floor: u64,
    /// The stream's end, as the stream has confirmed it.
    end: u64,
    /// The events that were delivered lately or above the floor.
    recent: BTreeMap<u64, Delivered>,
    /// No event up to this offset is still to come.
    settled: u64,
    announced: u64,
    /// The highest offset at each arrival, with the arrival time. Both ascend, and all are above the floor.
    marks: VecDeque<(Instant, u64)>,
}

#[derive(Debug)]
struct Delivered {
    digest: u64,
    at: Instant,
}

/// How an arriving event compares with those that were delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The event was not delivered before.
    New,
    /// The event was delivered before.
    Duplicate,
    /// Another event was delivered with the event's offset, so one of the two is not the stream's.
    Conflicting,
    /// The event is too old for the tracker to know.
    Stale,
}

impl SequenceTracker {
    /// Creates a tracker for which no event up to `end` needs delivery.
    pub(super) fn new(end: u64) -> Self {
        let (recent, marks) = (BTreeMap::new(), VecDeque::new());
        Self { certain: end, floor: end, end, recent, settled: end, announced: end, marks }
    }

    /// Records that an event is delivered, with its arrival time and a hash of its content. Returns how it compares.
    pub(super) fn record(&mut self, offset: u64, digest: u64, at: Instant) -> Arrival {
        if let Some(delivered) = self.recent.get_mut(&offset) {
            let same = std::mem::replace(&mut delivered.digest, digest) == digest;
            return if same { Arrival::Duplicate } else { Arrival::Conflicting };
        }
        if offset <= self.certain {
            return Arrival::Stale;
        }
        let highest = self.highest();
        self.recent.insert(offset, Delivered { digest, at });
        if offset > self.floor {
            self.advance();
            if offset > highest && offset > self.floor {
                self.marks.push_back((at, offset));
            }
        }
        while self.recent.len() > MAX_REMEMBERED {
            let oldest = self.recent.pop_first().map_or(0, |(oldest, _)| oldest);
            if oldest <= self.end {
                self.floor = self.floor.max(oldest);
            }
            self.advance();
        }
        Arrival::New
    }

    /// Records the end that the stream has confirmed. Events that arrived before `before` were stored before the
    /// question. Returns how many delivered events the stream does not have; they are forgotten.
    pub(super) fn confirm(&mut self, end: u64, before: Instant) -> usize {
        self.end = self.end.max(end);
        let mut forged = 0;
        if self.recent.last_key_value().is_some_and(|(highest, _)| *highest > self.end) {
            let above = self.recent.split_off(&(self.end + 1));
            let all = above.len();
            self.recent.extend(above.into_iter().filter(|(_, delivered)| delivered.at > before));
            forged = all - self.recent.range(self.end + 1..).count();
            let end = self.end;
            self.marks.retain(|(at, offset)| *offset <= end || *at > before);
        }
        self.advance();
        forged
    }

    /// Returns the offset through which events are settled at this time, if it has grown.
    pub(super) fn settle(&mut self, now: Instant) -> Option<u64> {
        let settled = self.marks.partition_point(|(at, _)| now.duration_since(*at) >= SETTLING);
        if let Some((_, offset)) = settled.checked_sub(1).map(|last| self.marks[last]) {
            self.settled = self.settled.max(offset.min(self.end));
        }
        self.advance();
        let grown = self.settled > self.announced;
        self.announced = self.settled;
        grown.then_some(self.settled)
    }

    /// Moves the floor to the events that arrived until this time: every event that was stored before one of them has
    /// arrived too, or is not read again after a break. This is not called during a backfill, for which the events
    /// above the floor must be known one by one.
    pub(super) fn expire(&mut self, until: Instant) {
        let aged = self.marks.partition_point(|(at, _)| *at <= until);
        if let Some((_, offset)) = aged.checked_sub(1).map(|last| self.marks[last]) {
            self.skip_to(offset.min(self.end));
        }
        while let Some(oldest) = self.recent.first_entry().filter(|oldest| *oldest.key() <= self.floor) {
            if oldest.get().at > until {
                break;
            }
            oldest.remove();
        }
    }

    /// Returns when [`SequenceTracker::settle`] next returns an offset, if no event arrives before.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.marks.partition_point(|(_, offset)| *offset <= self.settled);
        // An unconfirmed offset waits for the stream's answer.
        self.marks.get(next).filter(|(_, offset)| *offset <= self.end).map(|(at, _)| *at + SETTLING)
    }

    /// Records that every event up to this offset was read from the stream and delivered.
    pub(super) fn filled_through(&mut self, through: u64) {
        self.end = self.end.max(through);
        self.certain = self.certain.max(through);
        self.skip_to(through);
    }

    /// Records that every event up to this offset has arrived, or was not for this node.
    pub(super) fn skip_to(&mut self, through: u64) {
        self.end = self.end.max(through);
        self.floor = self.floor.max(through);
        self.advance();
    }

    /// Returns the offset after which a backfill starts.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns the highest offset that was delivered or skipped.
    pub(super) fn highest(&self) -> u64 {
        self.recent.last_key_value().map_or(0, |(highest, _)| *highest).max(self.floor)
    }

    /// Moves the floor and the settled offset over the events that follow without a gap.
    fn advance(&mut self) {
        while self.floor < self.end && self.recent.contains_key(&(self.floor + 1)) {
            if self.certain == self.floor {
                self.certain += 1;
            }
            self.floor += 1;
        }
        while self.marks.front().is_some_and(|(_, offset)| *offset <= self.floor) {
            self.marks.pop_front();
        }
        self.settled = self.settled.max(self.floor);
        while self.settled < self.end && self.recent.contains_key(&(self.settled + 1)) {
            self.settled += 1;
        }
    }
}

#[cfg(test)]
mod tests;
