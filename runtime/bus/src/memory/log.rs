//! The log behind the in-process bus: what the stream is for NATS.
//!
//! Invariant: offsets ascend without gaps from 1; the log holds the latest events, within all of its limits, and knows
//! for each room where its own are.
use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    time::Duration,
};

use rollcall_schema::{Offset, RoomId};
use tokio::time::Instant;

use crate::{Incoming, Publication, headers};

/// How long a message id is remembered (PROTOCOL 3).
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// What an event costs beside its body, about.
const OVERHEAD: usize = 550;

/// How much the log holds; the first limit reached counts.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// How many events.
    pub events: usize,
    /// How many bytes, with what it takes to keep them.
    pub bytes: usize,
    /// How old.
    pub age: Duration,
}

/// An hour, as the stream has, but no more than 4 MiB: some six thousand entered and left.
impl Default for LogLimits {
    fn default() -> Self {
        Self { events: 100_000, bytes: 4 * 1024 * 1024, age: Duration::from_secs(60 * 60) }
    }
}

#[derive(Debug)]
struct LogEntry {
    at: Instant,
    /// None for what cannot be forwarded: it keeps its place all the same, as in the stream.
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
    /// Where the events of each room are.
    rooms: HashMap<RoomId, VecDeque<u64>>,
    last: u64,
    recent: RecentIds,
}

impl Log {
    pub(super) fn new(limits: LogLimits) -> Self {
        let (events, rooms, recent) = (VecDeque::new(), HashMap::new(), RecentIds::new(Instant::now(), limits.events));
        Self { limits, events, bytes: 0, rooms, last: 0, recent }
    }

    /// The last event's offset.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The first event that is still there; one after the last where there is none.
    pub(super) fn first(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }

    /// Adds an event: its offset, or that of the one with the same message id.
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
        if let Some(event) = &entry.event {
            self.rooms.entry(event.room.clone()).or_default().push_back(offset.0);
        }
        self.events.push_back(entry);
        self.trim(now);
        offset
    }

    /// The event with this offset, if it is still there, and how old it is.
    pub(super) fn get(&self, offset: u64) -> Option<(&Incoming, Instant)> {
        let place = offset.checked_sub(self.first())?;
        let entry = self.events.get(usize::try_from(place).ok()?)?;
        Some((entry.event.as_ref()?, entry.at))
    }

    /// Where the events of a room after one offset up to another are, at most `most` of them.
    pub(super) fn offsets_of(&self, room: &RoomId, after: u64, through: u64, max: usize) -> impl Iterator<Item = u64> {
        let offsets = self.rooms.get(room);
        let from = offsets.map_or(0, |offsets| offsets.partition_point(|offset| *offset <= after));
        let offsets = offsets.into_iter().flat_map(move |offsets| offsets.range(from..));
        offsets.copied().take_while(move |offset| *offset <= through).take(max)
    }

    /// Forgets everything but its place.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.rooms.clear();
        self.bytes = 0;
    }

    fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.events.front() {
            let over = self.events.len() > self.limits.events || self.bytes > self.limits.bytes;
            if !over && now.duration_since(oldest.at) <= self.limits.age {
                break;
            }
            self.bytes -= oldest.bytes();
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

/// The message ids of the duplicate window, as 64 bits of a keyed hash each: among a million ids, the chance that a new
/// one is taken for one of them is one in 10^13. Those of a whole window are forgotten together, one window later.
#[derive(Debug)]
struct RecentIds {
    hasher: RandomState,
    /// How many a window has room for.
    max: usize,
    newer: HashMap<u64, u64>,
    older: HashMap<u64, u64>,
    /// When the young were none.
    rotated_at: Instant,
}

impl RecentIds {
    /// Takes its memory at once, so that what a gateway has does not grow with its first hundred thousand events.
    fn new(now: Instant, max: usize) -> Self {
        let (newer, older) = (HashMap::with_capacity(max), HashMap::with_capacity(max));
        Self { hasher: RandomState::new(), max, newer, older, rotated_at: now }
    }

    /// The offset under which the id is known; notes it under `offset` where it is not.
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
