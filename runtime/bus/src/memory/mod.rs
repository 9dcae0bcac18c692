//! The bus in the process, for a single node.
//!
//! Invariant: the invariant of [`crate`] holds. The log is the only queue. The feed and every replay read the log with
//! their own cursor, at their own pace, and learn if the log has forgotten events that they had not read. The log ends
//! with the process, so each start is a new epoch. Events of handlers and other services wait while the feed has half of
//! the log to read, so that they cannot make it miss any.
mod log;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rollcall_schema::{Offset, RoomId, Sid};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use self::log::Log;
pub use self::log::LogLimits;
use super::{Bus, BusError, BusEvent, Incoming, Position, Publication, PublishError, Replay, before_oldest};
use rollcall_base::tasks::{TaskEnded, Tasks};

/// The maximum number of unread events of the feed.
const FEED: usize = 256;
/// The maximum number of unread events of a replay.
const REPLAY: usize = 64;
/// How long an event of a handler or another service waits for the feed.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// How many offsets of the log are read under one lock.
const MAX_CHUNK: usize = 256;

/// The bus in the process.
pub struct MemoryBus {
    shared: Arc<Shared>,
    followers: AtomicUsize,
    /// The tasks, which end when the bus is dropped.
    _tasks: JoinSet<()>,
    supervisor: Tasks,
}

struct Shared {
    state: Mutex<State>,
    grown: Notify,
    /// Sends the offset through which the feed has read the log.
    read: watch::Sender<u64>,
    epoch: String,
}

struct State {
    log: Log,
    /// The subscribed rooms, each with the offset after which its events are delivered.
    rooms: HashMap<RoomId, u64>,
}

impl MemoryBus {
    /// Starts the bus, and returns it with its feed. The caller must be inside a Tokio runtime.
    #[must_use]
    pub fn start(limits: LogLimits) -> (Self, mpsc::Receiver<BusEvent>) {
        let state = State { log: Log::new(limits), rooms: HashMap::new() };
        let epoch = Sid::random().to_string();
        let shared =
            Arc::new(Shared { state: Mutex::new(state), grown: Notify::new(), read: watch::Sender::new(0), epoch });
        let (feed, events) = mpsc::channel(FEED);
        let (mut tasks, supervisor) = (JoinSet::new(), Tasks::default());
        tasks.spawn(supervisor.supervise("delivery in process", deliver(shared.clone(), feed)));
        (Self { shared, followers: AtomicUsize::new(0), _tasks: tasks, supervisor }, events)
    }

    /// Forgets all events, as a purge of the stream does.
    pub fn purge(&self) {
        self.shared.state.lock().log.clear();
    }
}

/// Reads the whole log, and writes the events of subscribed rooms to the feed.
async fn deliver(shared: Arc<Shared>, feed: mpsc::Sender<BusEvent>) {
    let mut cursor = 0;
    loop {
        let (found, reached) = shared.state.lock().read_after(cursor);
        shared.read.send_replace(reached);
        if reached == cursor {
            shared.grown.notified().await;
        }
        cursor = reached;
        for item in found {
            if feed.send(item).await.is_err() {
                return;
            }
        }
    }
}

impl State {
    /// Returns the items of the feed after this offset, and the offset through which they are complete.
    fn read_after(&mut self, mut cursor: u64) -> (Vec<BusEvent>, u64) {
        let mut found = Vec::new();
        if self.log.first() > cursor + 1 {
            cursor = self.log.first() - 1;
            found.push(BusEvent::Gap(Offset(cursor)));
        }
        let end = self.log.last().min(cursor + MAX_CHUNK as u64);
        for (event, at) in (cursor + 1..=end).filter_map(|offset| self.log.get(offset)) {
            if self.rooms.get(&event.room).is_some_and(|since| event.offset.0 > *since) {
                found.push(BusEvent::Event(Incoming { age: Some(at.elapsed()), ..event.clone() }));
            }
        }
        if !found.is_empty() {
            found.push(BusEvent::Watermark(Offset(end)));
        }
        self.log.read_through(end);
        (found, end)
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn ping(&self) -> Result<(), BusError> {
        Ok(())
    }

    async fn failed(&self) -> TaskEnded {
        self.supervisor.failed().await
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let results = batch.into_iter().map(|publication| Ok(state.log.append(publication, now))).collect();
        drop(state);
        self.shared.grown.notify_one();
        results
    }

    async fn publish_events(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        let until = Instant::now() + READ_TIMEOUT;
        let mut read = self.shared.read.subscribe();
        let mut results = Vec::with_capacity(batch.len());
        let mut batch = batch.into_iter();
        while !batch.as_slice().is_empty() {
            let room = read.wait_for(|_| self.shared.state.lock().log.has_room());
            if !matches!(timeout_at(until, room).await, Ok(Ok(_))) {
                let behind =
                    || PublishError::Away(BusError("the events before this one are not delivered yet".to_owned()));
                results.extend(batch.map(|_| Err(behind())));
                break;
            }
            let now = Instant::now();
            let mut state = self.shared.state.lock();
            while state.log.has_room()
                && let Some(publication) = batch.next()
            {
                results.push(Ok(state.log.append(publication, now)));
            }
            drop(state);
            self.shared.grown.notify_one();
        }
        results
    }

    async fn subscribe(&self, room: &RoomId) -> Result<Offset, BusError> {
        let mut state = self.shared.state.lock();
        let last = state.log.last();
        state.rooms.entry(room.clone()).or_insert(last);
        Ok(Offset(last))
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.shared.state.lock().rooms.remove(room);
    }

    fn followers(&self) -> &AtomicUsize {
        &self.followers
    }

    fn position(&self) -> Position {
        Position { epoch: self.shared.epoch.clone(), offset: Offset(self.shared.state.lock().log.last()) }
    }

    async fn end(&self) -> Position {
        self.position()
    }

    async fn oldest(&self) -> Result<Position, BusError> {
        let state = self.shared.state.lock();
        let first = state.log.first();
        let offset = before_oldest(first, state.log.last(), first > 1);
        Ok(Position { epoch: self.shared.epoch.clone(), offset })
    }

    async fn replay(&self, rooms: &[RoomId], after: &Position) -> Result<Replay, BusError> {
        let here = self.position();
        let first = self.shared.state.lock().log.first();
        if after.epoch != here.epoch || after.offset > here.offset || after.offset.0 + 1 < first {
            return Ok(Replay::Lost);
        }
        let (events, replayed) = mpsc::channel(REPLAY);
        tokio::spawn(replay(self.shared.clone(), rooms.to_vec(), after.offset.0, here.offset.0, events));
        Ok(Replay::Events(replayed, here.offset))
    }
}

/// Sends events as fast as the receiver reads, until the end or until it is dropped.
async fn replay(
    shared: Arc<Shared>,
    rooms: Vec<RoomId>,
    mut after: u64,
    through: u64,
    events: mpsc::Sender<Result<Incoming, BusError>>,
) {
    loop {
        let (found, forgotten) = {
            let state = shared.state.lock();
            (state.of_rooms(&rooms, after, through), after < through && state.log.first() > after + 1)
        };
        if forgotten {
            // The forgotten events may have been among the requested ones.
            let error = BusError("the log does not reach back that far any more".to_owned());
            let _ = events.send(Err(error)).await;
            return;
        }
        let Some(last) = found.last() else { return };
        after = last.offset.0;
        for event in found {
            if events.send(Ok(event)).await.is_err() {
                return;
            }
        }
    }
}

impl State {
    /// Returns the next events of these rooms, in order.
    fn of_rooms(&self, rooms: &[RoomId], after: u64, through: u64) -> Vec<Incoming> {
        let of_room = |room| self.log.offsets_of(room, after, through, MAX_CHUNK);
        let mut offsets: Vec<u64> = rooms.iter().flat_map(of_room).collect();
        offsets.sort_unstable();
        offsets.dedup();
        offsets.truncate(MAX_CHUNK);
        let events = offsets.into_iter().filter_map(|offset| self.log.get(offset));
        events.map(|(event, at)| Incoming { age: Some(at.elapsed()), ..event.clone() }).collect()
    }
}
