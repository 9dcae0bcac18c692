//! The log of the bus in the process. It has the part that the stream has on NATS.
//!
//! Invariant: offsets ascend without gaps from 1; the log holds the latest events within all of its limits, and knows
//! the offsets of each room's events.
use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    time::Duration,
};

use rollcall_schema::{Offset, RoomId};
use tokio::time::Instant;

use crate::{Incoming, Publication, headers};

/// How long the log remembers a message id (PROTOCOL 3).
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// The approximate cost of an event beside its body, in bytes.
const OVERHEAD: usize = 550;

/// How much the log holds. The first limit that is reached counts.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// The maximum number of events.
    pub events: usize,
    /// The maximum number of bytes of all events, including the overhead.
    pub bytes: usize,
    /// The highest age of the oldest event.
    pub age: Duration,
}

/// The default is an hour, as for the stream, but at most 4 MiB, which is about six thousand events of presence.
impl Default for LogLimits {
    fn default() -> Self {
        Self { events: 100_000, bytes: 4 * 1024 * 1024, age: Duration::from_secs(60 * 60) }
    }
}

#[derive(Debug)]
struct LogEntry {
    at: Instant,
    /// The event. `None` if it cannot be forwarded. It keeps its offset, as in the stream.
    event: Option<Incoming>,
}

impl LogEntry {
    fn bytes(&self) -> usize {
        OVERHEAD + self.event.as_ref().map_or(0, |event| event.body.len())
    }
}

#[derive(Debug)]
pub(super) struct Log {
    limits: LogLimits,
    events: VecDeque<LogEntry>,
    bytes: usize,
    /// The offsets of each room's events.
    rooms: HashMap<RoomId, VecDeque<u64>>,
    last: u64,
    /// The offset through which the feed has read.
    read: u64,
    /// The bytes of the events that the feed has not read.
    unread: usize,
    recent: RecentIds,
}

impl Log {
    pub(super) fn new(limits: LogLimits) -> Self {
        let (events, rooms, recent) = (VecDeque::new(), HashMap::new(), RecentIds::new(Instant::now(), limits.events));
        Self { limits, events, bytes: 0, rooms, last: 0, read: 0, unread: 0, recent }
    }

    /// Returns the offset of the last event.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Returns the offset of the oldest event that is still there, or the next offset if there is none.
    pub(super) fn first(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }

    /// Returns whether the feed has read enough that a further event pushes out none that it still has to read: half of the
    /// log.
    pub(super) fn has_room(&self) -> bool {
        let unread = usize::try_from(self.last - self.read).unwrap_or(usize::MAX);
        unread < self.limits.events.div_ceil(2) && self.unread <= self.limits.bytes / 2
    }

    /// Records that the feed has read through this offset.
    pub(super) fn read_through(&mut self, offset: u64) {
        let first = self.first();
        for read in (self.read + 1).max(first)..=offset {
            let entry = usize::try_from(read - first).ok().and_then(|place| self.events.get(place));
            self.unread -= entry.map_or(0, LogEntry::bytes);
        }
        self.read = self.read.max(offset);
    }

    /// Adds an event. Returns its offset, or that of the event with the same message id.
    pub(super) fn append(&mut self, publication: Publication, now: Instant) -> Offset {
        self.recent.forget(now);
        if let Some(id) = &publication.message_id
            && let Some(offset) = self.recent.remember(id, self.last + 1)
        {
            return Offset(offset);
        }
        self.last += 1;
        let offset = Offset(self.last);
        let headers = publication.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let subject = publication.subject.to_string();
        let entry = LogEntry { at: now, event: headers::incoming(&subject, headers, offset, None, publication.body) };
        self.bytes += entry.bytes();
        self.unread += entry.bytes();
        if let Some(event) = &entry.event {
            self.rooms.entry(event.room.clone()).or_default().push_back(offset.0);
        }
        self.events.push_back(entry);
        self.trim(now);
        offset
    }

    /// Returns the event with this offset and the time when it was stored, if it is still there.
    pub(super) fn get(&self, offset: u64) -> Option<(&Incoming, Instant)> {
        let place = offset.checked_sub(self.first())?;
        let entry = self.events.get(usize::try_from(place).ok()?)?;
        Some((entry.event.as_ref()?, entry.at))
    }

    /// Returns the offsets of a room's events after one offset and through another, at most `max` of them.
    pub(super) fn offsets_of(&self, room: &RoomId, after: u64, through: u64, max: usize) -> impl Iterator<Item = u64> {
        let offsets = self.rooms.get(room);
        let from = offsets.map_or(0, |offsets| offsets.partition_point(|offset| *offset <= after));
        let offsets = offsets.into_iter().flat_map(move |offsets| offsets.range(from..));
        offsets.copied().take_while(move |offset| *offset <= through).take(max)
    }

    /// Forgets all events. Offsets go on.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.rooms.clear();
        self.bytes = 0;
        self.unread = 0;
    }

    fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.events.front() {
            let over = self.events.len() > self.limits.events || self.bytes > self.limits.bytes;
            if !over && now.duration_since(oldest.at) <= self.limits.age {
                break;
            }
            self.bytes -= oldest.bytes();
            if self.read < self.first() {
                self.unread -= oldest.bytes();
            }
            if let Some(event) = &oldest.event
                && let Some(offsets) = self.rooms.get_mut(&event.room)
            {
                offsets.pop_front();
                if offsets.is_empty() {
                    self.rooms.remove(&event.room);
                }
            }
            self.events.pop_front();
        }
    }
}

/// The message ids of the duplicate window, each as 64 bits of a keyed hash. Among a million ids, a new id is taken for
/// a known one with a chance of one in 10^13. The ids of a whole window are forgotten together, one window later.
#[derive(Debug)]
struct RecentIds {
    hasher: RandomState,
    /// The maximum number of ids of a window.
    max: usize,
    newer: HashMap<u64, u64>,
    older: HashMap<u64, u64>,
    /// When `newer` was last empty.
    rotated_at: Instant,
}

impl RecentIds {
    /// Allocates at once, so that the gateway's memory does not grow with its first hundred thousand events.
    fn new(now: Instant, max: usize) -> Self {
        let (newer, older) = (HashMap::with_capacity(max), HashMap::with_capacity(max));
        Self { hasher: RandomState::new(), max, newer, older, rotated_at: now }
    }

    /// Returns the offset of the event with this id. An unknown id is remembered with `offset`, and `None` is returned.
    fn remember(&mut self, id: &str, offset: u64) -> Option<u64> {
        let hash = self.hasher.hash_one(id);
        if let Some(known) = self.newer.get(&hash).or_else(|| self.older.get(&hash)) {
            return Some(*known);
        }
        self.newer.insert(hash, offset);
        None
    }

    fn forget(&mut self, now: Instant) {
        if self.newer.len() >= self.max || now.duration_since(self.rotated_at) > DUPLICATE_WINDOW {
            std::mem::swap(&mut self.older, &mut self.newer);
            self.newer.clear();
            self.rotated_at = now;
        }
    }
}
