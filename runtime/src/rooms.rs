//! Rooms of this node: one subscription each, however many members, and the way of an event from the feed to the workers.
//!
//! Invariant: a room is subscribed from before its first member's session is committed until its last member has left,
//! and a worker hears of a member before it hears of any event that the member must get, since both come through the
//! same inbox. Members hear of nothing that is not after the position at which their room began: a feed that fills a gap
//! may bring some of it, and whoever heard that would miss the rest.
pub mod delivery;

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rollcall_schema::{Offset, RoomId};
use tokio::{
    sync::{OnceCell, mpsc},
    time::timeout,
};
use tracing::warn;

use crate::{
    gateway::{Mailboxes, WorkerCommand},
    rooms::delivery::Delivery,
};
use rollcall_base::names;
use rollcall_bus::{Bus, BusEvent, Incoming, Position, Replay, Replayed};
use rollcall_websocket::SocketId;

/// How long a client waits for its room's subscription; a bus that takes longer fills the room afterwards.
const SUBSCRIBE: Duration = Duration::from_millis(500);

/// All rooms that have members here. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    bus: Arc<dyn Bus>,
    mailboxes: Mailboxes,
    max_body: usize,
    entries: Mutex<HashMap<RoomId, Entry>>,
    keys: AtomicU64,
    /// Up to where the feed is settled.
    settled: AtomicU64,
    /// How many followers there are.
    followers: AtomicUsize,
}

struct Entry {
    key: RoomKey,
    life: Arc<Life>,
    /// Holds by worker: events go where there are any.
    holds: Box<[u32]>,
}

/// From a room's first member to its last.
#[derive(Default)]
struct Life {
    subscribed: OnceCell<()>,
    /// The position when it was subscribed, or when that was begun where nobody answered.
    begins: AtomicU64,
}

impl Life {
    fn has(&self, offset: Offset) -> bool {
        offset.0 > self.begins.load(Ordering::SeqCst)
    }
}

/// A room's number in this process, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomKey(NonZeroU64);

impl RoomKey {
    /// No room's.
    pub const NONE: Self = Self(NonZeroU64::MAX);
}

/// Keeps a room alive for a worker.
pub struct RoomHold {
    rooms: Rooms,
    life: Arc<Life>,
    id: RoomId,
    key: RoomKey,
    worker: usize,
}

impl RoomHold {
    /// The room's number.
    #[must_use]
    pub fn key(&self) -> RoomKey {
        self.key
    }

    /// The room.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// Whether an event of this offset is one for the room's members. One of before the room began may have been on its
    /// way to a worker already.
    #[must_use]
    pub fn has(&self, offset: Offset) -> bool {
        self.life.has(offset)
    }
}

impl Drop for RoomHold {
    fn drop(&mut self) {
        let mut entries = self.rooms.entries();
        let Some(entry) = entries.get_mut(&self.id) else { return };
        entry.holds[self.worker] -= 1;
        if entry.holds.iter().all(|holds| *holds == 0) {
            entries.remove(&self.id);
            // Under the lock, so that it cannot overtake the subscription of the room's next life.
            self.rooms.0.bus.unsubscribe(&self.id);
            metrics::gauge!(names::ROOMS, "kind" => self.id.kind()).decrement(1.0);
        }
    }
}

/// While there is one, the workers hear up to where the feed is settled: a connection that resumes has one.
pub struct Follower(Rooms);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.0.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Rooms {
    /// No rooms yet. Events with a body over `max_body` bytes are not forwarded.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, mailboxes: Mailboxes, max_body: usize) -> Self {
        let inner = Inner {
            bus,
            mailboxes,
            max_body,
            entries: Mutex::default(),
            keys: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            followers: AtomicUsize::new(0),
        };
        Self(Arc::new(inner))
    }

    /// The seed's enter_room. When it returns, the room's subscription is live (or is kept as a wish, while the bus is
    /// away), and the socket is held at the room's door: events are kept for it until its handler is done.
    pub async fn enter(&self, socket: SocketId, id: RoomId) {
        let hold = self.hold(id, socket.worker());
        hold.life.subscribed.get_or_init(|| self.subscribe(hold.id())).await;
        self.0.mailboxes.send(socket, WorkerCommand::Enter { socket, room: hold }).await;
    }

    async fn subscribe(&self, id: &RoomId) {
        self.begin(id, None);
        match timeout(SUBSCRIBE, self.0.bus.subscribe(id)).await {
            Ok(Ok(offset)) => self.begin(id, Some(offset)),
            Ok(Err(error)) => warn!(room = %id, %error, "the room is filled when the bus is back"),
            Err(_) => warn!(room = %id, "the room is filled when the bus answers"),
        }
    }

    /// The room begins here, or where the stream was known to be last. Under the lock, so that it cannot be an offset of
    /// before the offsets started again.
    fn begin(&self, id: &RoomId, offset: Option<Offset>) {
        let entries = self.entries();
        if let Some(entry) = entries.get(id) {
            let known = self.0.bus.position().offset;
            let begins = offset.map_or(known, |offset| offset.min(known));
            entry.life.begins.store(begins.0, Ordering::SeqCst);
        }
    }

    /// Where the stream is. Whoever has entered a room before the call gets what is stored later.
    pub async fn end(&self) -> Position {
        self.0.bus.end().await
    }

    /// From now on the workers are told up to where the feed is settled, which is here at least.
    #[must_use]
    pub fn follow(&self) -> (Follower, Offset) {
        // One after the other, as in dispatch: it sees the follower, or this sees what it says.
        self.0.followers.fetch_add(1, Ordering::SeqCst);
        (Follower(self.clone()), Offset(self.0.settled.load(Ordering::SeqCst)))
    }

    /// What was missed in these rooms, and up to where; none where some of it is gone, or the bus is away.
    pub async fn replay(&self, rooms: &[RoomId], after: &Position) -> Option<(Replayed, Offset)> {
        match self.0.bus.replay(rooms, after).await {
            Ok(Replay::Events(events, upto)) => Some((events, upto)),
            Ok(Replay::Lost) => None,
            Err(error) => {
                warn!(%error, "a client that resumes is told that it cannot");
                None
            }
        }
    }

    /// Hands every event of the feed to the workers that have members of its room, until the feed ends.
    pub async fn dispatch(self, mut feed: mpsc::Receiver<BusEvent>) {
        while let Some(fed) = feed.recv().await {
            match fed {
                BusEvent::Event(incoming) => {
                    if let Some((key, workers)) = self.audience(&incoming)
                        && let Some(delivery) = self.encode(key, incoming)
                    {
                        let delivery = Arc::new(delivery);
                        for worker in workers {
                            self.0.mailboxes.to(worker, WorkerCommand::Deliver(Arc::clone(&delivery))).await;
                        }
                    }
                }
                BusEvent::Watermark(offset) => {
                    self.0.settled.store(offset.0, Ordering::SeqCst);
                    if self.0.followers.load(Ordering::SeqCst) > 0 {
                        self.0.mailboxes.broadcast(|| WorkerCommand::Watermark(offset)).await;
                    }
                }
                BusEvent::Gap(upto) => {
                    warn!(%upto, "events are gone for good: the connections of their rooms are closed");
                    self.0.mailboxes.broadcast(|| WorkerCommand::Gap(upto)).await;
                }
                BusEvent::StreamReset => {
                    warn!("the stream was made anew or put back: the connections of its rooms are closed");
                    self.0.settled.store(0, Ordering::SeqCst);
                    self.entries().values().for_each(|entry| entry.life.begins.store(0, Ordering::SeqCst));
                    self.0.mailboxes.broadcast(|| WorkerCommand::StreamReset).await;
                }
            }
        }
    }

    /// An event as it goes to members; none where nobody gets it.
    #[must_use]
    pub fn encode(&self, key: RoomKey, incoming: Incoming) -> Option<Delivery> {
        Delivery::encode(key, incoming, self.0.max_body)
    }

    fn hold(&self, id: RoomId, worker: usize) -> RoomHold {
        let mut entries = self.entries();
        let entry = entries.entry(id.clone()).or_insert_with(|| {
            metrics::gauge!(names::ROOMS, "kind" => id.kind()).increment(1.0);
            Entry {
                key: RoomKey(NonZeroU64::MIN.saturating_add(self.0.keys.fetch_add(1, Ordering::Relaxed))),
                life: Arc::default(),
                holds: vec![0; self.0.mailboxes.len()].into(),
            }
        });
        entry.holds[worker] += 1;
        RoomHold { rooms: self.clone(), life: Arc::clone(&entry.life), key: entry.key, worker, id }
    }

    fn audience(&self, incoming: &Incoming) -> Option<(RoomKey, Vec<usize>)> {
        let entries = self.entries();
        let entry = entries.get(&incoming.room).filter(|entry| entry.life.has(incoming.offset))?;
        let workers = entry.holds.iter().enumerate().filter(|(_, holds)| **holds > 0).map(|(worker, _)| worker);
        Some((entry.key, workers.collect()))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<RoomId, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
