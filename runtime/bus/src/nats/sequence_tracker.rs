//! What was delivered, where events may come out of order.
//!
//! nats-server 2.9 numbers an event under the stream's lock and republishes it after it: where several clients publish at
//! once, one in some hundred overtakes another. On one connection an event comes once all the same; it can come twice
//! only from the connection and from a filling, or from two fillings.
//!
//! Invariant: everything up to the floor was delivered, or was never for this node, or is later than a server that runs
//! ever is; above it, it is known for each event whether it was. The floor never passes what the stream itself has told to
//! be its end, so an event with a sequence number that somebody made up moves nothing. Where such an event took a number
//! before the stream gave it, the stream's own is told from it by its content, and delivered too. Memory is bounded by
//! [`MAX_REMEMBERED`].
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// An event whose predecessor is missing waits this long for it, where its reader wants them in order. What comes late
/// comes after some microseconds, unless the server's threads are waiting for a processor: this is several turns of the
/// scheduler, and less than anybody notices.
pub(super) const SETTLING: Duration = Duration::from_millis(25);
/// Offsets that are remembered one by one.
const MAX_REMEMBERED: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct SequenceTracker {
    /// Nothing up to here is missing for certain: whatever else comes of that is a double.
    certain: u64,
    /// Nothing up to here is missing, unless it is later than [`SequenceTracker::expire`] was told.
    floor: u64,
    /// The stream's end, as it has told.
    end: u64,
    /// What was delivered lately, or above the floor.
    recent: BTreeMap<u64, Delivered>,
    /// Nothing at or below is yet to come.
    settled: u64,
    announced: u64,
    /// The highest offset so far, by the time of its coming; both ascend, above the floor.
    marks: VecDeque<(Instant, u64)>,
}

#[derive(Debug)]
struct Delivered {
    digest: u64,
    at: Instant,
}

/// What an event is that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was not delivered yet.
    New,
    /// It was.
    Duplicate,
    /// Another one was delivered as this one: one of the two is not the stream's.
    Conflicting,
    /// It is one of those of before, and not known one by one any more.
    Stale,
}

impl SequenceTracker {
    /// Where everything up to here needs no delivery.
    pub(super) fn new(end: u64) -> Self {
        let (recent, marks) = (BTreeMap::new(), VecDeque::new());
        Self { certain: end, floor: end, end, recent, settled: end, announced: end, marks }
    }

    /// What this event is, which came at this time; now it is delivered. The digest is one of its content.
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

    /// The stream's end, as it has told, and the time before which everything that came is known to it. Returns how many
    /// of the events delivered are not in the stream: they are forgotten.
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

    /// Time has passed: up to where the events are settled, where that has grown.
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

    /// What was stored before something that came until then has come too, or will not be read again after a break. Not
    /// while the stream is read: what was delivered above the floor is known one by one, and the reading comes by it.
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

    /// When [`SequenceTracker::settle`] has something to say, if nothing comes before.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.marks.partition_point(|(_, offset)| *offset <= self.settled);
        // What the stream has not confirmed waits for its answer.
        self.marks.get(next).filter(|(_, offset)| *offset <= self.end).map(|(at, _)| *at + SETTLING)
    }

    /// Everything up to here was read from the stream and delivered.
    pub(super) fn filled_through(&mut self, through: u64) {
        self.end = self.end.max(through);
        self.certain = self.certain.max(through);
        self.skip_to(through);
    }

    /// Everything up to here has come, or was never for this node.
    pub(super) fn skip_to(&mut self, through: u64) {
        self.end = self.end.max(through);
        self.floor = self.floor.max(through);
        self.advance();
    }

    /// Where filling starts.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The highest offset that was delivered or passed.
    pub(super) fn highest(&self) -> u64 {
        self.recent.last_key_value().map_or(0, |(highest, _)| *highest).max(self.floor)
    }

    /// Moves the floor and what is settled over whatever follows without a gap.
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
