//! Which events were delivered, although they may arrive out of order.
//!
//! nats-server 2.9 numbers an event under the stream's lock and republishes it after releasing it: if several clients
//! publish at once, about one event in a hundred overtakes another. One connection never brings an event twice;
//! duplicates come only from a connection and a backfill, or from two backfills.
//!
//! Invariant: everything up to the floor was delivered, or was never for this node, or is later than a running server
//! ever is. Above the floor it is known for each event whether it was delivered. The floor never passes the end that
//! the stream has confirmed, so a forged sequence number moves nothing. If a forged event took a number before the
//! stream gave it to an event, the two differ by content, and the stream's is delivered too. Memory is bounded by
//! [`MAX_REMEMBERED`].
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// If an event's predecessor is missing, a reader that wants the stream's order waits this long for it. A late event is
/// some microseconds late, unless the server's threads wait for a CPU: this is several time slices of the scheduler,
/// and too short to be noticed.
pub(super) const SETTLING: Duration = Duration::from_millis(25);
/// How many offsets are remembered one by one.
const MAX_REMEMBERED: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct SequenceTracker {
    /// Nothing up to here is missing for certain: anything else that arrives from there is a duplicate.
    certain: u64,
    /// Nothing up to here is missing, unless it arrives later than [`SequenceTracker::expire`] allows.
    floor: u64,
    /// The stream's end, as the stream has confirmed it.
    end: u64,
    /// What was delivered lately, or above the floor.
    recent: BTreeMap<u64, Delivered>,
    /// Nothing up to here is yet to come.
    settled: u64,
    announced: u64,
    /// The highest offset so far, with its arrival time; both ascend, and are above the floor.
    marks: VecDeque<(Instant, u64)>,
}

#[derive(Debug)]
struct Delivered {
    digest: u64,
    at: Instant,
}

/// What an arriving event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Not delivered before.
    New,
    /// Delivered before.
    Duplicate,
    /// Another event was delivered under its offset: one of the two is not the stream's.
    Conflicting,
    /// Too old to be known one by one.
    Stale,
}

impl SequenceTracker {
    /// Everything up to `end` needs no delivery.
    pub(super) fn new(end: u64) -> Self {
        let (recent, marks) = (BTreeMap::new(), VecDeque::new());
        Self { certain: end, floor: end, end, recent, settled: end, announced: end, marks }
    }

    /// Records an event as delivered, with its arrival time and a hash of its content. Returns what it was before.
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

    /// The stream has confirmed its end; what arrived before `before` was stored before the question. Returns how many
    /// delivered events the stream does not have: they are forgotten.
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

    /// Up to where events are settled at this time, if that has grown.
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

    /// What was stored before something that arrived until then has arrived too, or is not read again after a break.
    /// Not called during a backfill: what was delivered above the floor is known one by one, and the backfill reads it.
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

    /// When [`SequenceTracker::settle`] has news next, if nothing arrives before.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.marks.partition_point(|(_, offset)| *offset <= self.settled);
        // An unconfirmed offset waits for the stream's answer.
        self.marks.get(next).filter(|(_, offset)| *offset <= self.end).map(|(at, _)| *at + SETTLING)
    }

    /// Everything up to here was read from the stream and delivered.
    pub(super) fn filled_through(&mut self, through: u64) {
        self.end = self.end.max(through);
        self.certain = self.certain.max(through);
        self.skip_to(through);
    }

    /// Everything up to here has arrived, or was never for this node.
    pub(super) fn skip_to(&mut self, through: u64) {
        self.end = self.end.max(through);
        self.floor = self.floor.max(through);
        self.advance();
    }

    /// A backfill starts after this offset.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The highest offset that was delivered or skipped.
    pub(super) fn highest(&self) -> u64 {
        self.recent.last_key_value().map_or(0, |(highest, _)| *highest).max(self.floor)
    }

    /// Moves the floor and the settled offset over all that follows without a gap.
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
