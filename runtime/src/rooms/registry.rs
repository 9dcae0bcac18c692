//! The rooms that have members on this node, with one subscription each, however many members.
//!
//! Invariant: a room is subscribed from before its first member's session is committed until its last member has left. A
//! worker hears of a member before it hears of any event that the member must get, since both come through the same inbox.
//! Members get only events after the position at which their room began: a backfill may bring some earlier events, and a
//! member that got those would miss the rest.
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rollcall_schema::{Offset, RoomId};
use tokio::{sync::OnceCell, time::timeout};
use tracing::warn;

use super::{Delivery, RoomKey, namespaces::Namespaces};
use rollcall_base::names;
use rollcall_bus::{Bus, Incoming, Position, Replay, Replayed};
use rollcall_websocket::SocketId;

/// How long a client waits for its room's subscription; when the bus takes longer, it fills the room afterwards.
const SUBSCRIBE: Duration = Duration::from_millis(500);

/// What rooms tell a worker.
pub enum RoomCommand {
    /// A handler adds this connection to a room: the room's events are buffered for it until the handler is done.
    AddMember {
        /// The connection.
        socket: SocketId,
        /// The room, kept alive.
        room: RoomHold,
    },
    /// A handler reads who is in the connection's rooms: their events are buffered for it until the handler is done.
    Hold(SocketId),
    /// An event for a room's members.
    Deliver(Arc<Delivery>),
    /// Every event through this offset has come.
    Watermark(Offset),
    /// Events through this offset may be missing.
    Gap(Offset),
    /// Offsets start again.
    StreamReset,
}

/// How rooms reach the workers.
#[async_trait]
pub trait RoomWorkers: Send + Sync {
    /// How many workers there are.
    fn count(&self) -> usize;
    /// Sends to a worker, waiting for room in its inbox. A worker gets commands in the order in which they were sent.
    async fn send(&self, worker: usize, command: RoomCommand);
}

/// All rooms that have members here. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(pub(super) Arc<Inner>);

pub(super) struct Inner {
    bus: Arc<dyn Bus>,
    pub(super) workers: Arc<dyn RoomWorkers>,
    /// The largest body that is forwarded, in bytes.
    max_body: usize,
    /// The namespaces of Socket.IO's clients.
    namespaces: Namespaces,
    /// The epoch of the feed's stream.
    epoch: Mutex<Arc<str>>,
    entries: Mutex<HashMap<RoomId, Entry>>,
    /// How many rooms were made.
    made: AtomicU64,
    /// The offset through which every event has come.
    pub(super) watermark: AtomicU64,
    /// How many followers there are.
    pub(super) followers: AtomicUsize,
}

pub(super) struct Entry {
    pub(super) key: RoomKey,
    pub(super) life: Arc<Life>,
    /// How many holds each worker has: events go to workers that have any.
    pub(super) holds: Box<[u32]>,
}

/// A room from its first member to its last.
#[derive(Default)]
pub(super) struct Life {
    subscribed: OnceCell<()>,
    /// Members get the events after this offset. It is set before the room has members.
    begins: AtomicU64,
    /// The highest offset that came.
    latest: AtomicU64,
}

impl Life {
    fn has(&self, offset: Offset) -> bool {
        offset.0 > self.begins.load(Ordering::SeqCst)
    }

    /// Notes that an event of this offset came. Returns whether it is for members.
    pub(super) fn comes(&self, offset: Offset) -> bool {
        self.latest.fetch_max(offset.0, Ordering::SeqCst);
        self.has(offset)
    }

    /// Offsets start again.
    pub(super) fn begin_anew(&self) {
        self.begins.store(0, Ordering::SeqCst);
        self.latest.store(0, Ordering::SeqCst);
    }
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

    /// Whether an event of this offset is for the room's members. An event from before the room began may already have been
    /// on its way to a worker.
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

/// While there is a follower, the workers get the feed's watermark. Each connection that resumes has one.
pub struct Follower(Rooms);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.0.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Rooms {
    /// Whether anybody on this node is in the room.
    #[must_use]
    pub fn has_members(&self, room: &RoomId) -> bool {
        self.entries().contains_key(room)
    }

    /// A registry without rooms. Events with a body over `max_body` bytes are not forwarded.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, workers: Arc<dyn RoomWorkers>, max_body: usize) -> Self {
        Self::with_namespaces(bus, workers, max_body, Namespaces::default())
    }

    /// The same for members that may be Socket.IO's clients in these namespaces.
    #[must_use]
    pub fn with_namespaces(
        bus: Arc<dyn Bus>,
        workers: Arc<dyn RoomWorkers>,
        max_body: usize,
        namespaces: Namespaces,
    ) -> Self {
        let inner = Inner {
            epoch: Mutex::new(bus.position().epoch.into()),
            bus,
            workers,
            max_body,
            namespaces,
            entries: Mutex::default(),
            made: AtomicU64::new(0),
            watermark: AtomicU64::new(0),
            followers: AtomicUsize::new(0),
        };
        Self(Arc::new(inner))
    }

    /// The seed's enter_room. When it returns, the room's subscription is live (or pending, while the bus is away), and the
    /// room's events are buffered for the socket until its handler is done.
    pub async fn enter(&self, socket: SocketId, id: RoomId) {
        let room = self.hold(id, socket.worker());
        room.life.subscribed.get_or_init(|| self.subscribe(room.id())).await;
        self.0.workers.send(socket.worker(), RoomCommand::AddMember { socket, room }).await;
    }

    /// From here on the events of the socket's rooms wait until its handler is done and its answer is sent. Call it before
    /// who is there is read: an event that was sent before is in what is read, and one that is sent later could be older
    /// than the answer, and yet come first.
    pub async fn hold_events(&self, socket: SocketId) {
        self.0.workers.send(socket.worker(), RoomCommand::Hold(socket)).await;
    }

    async fn subscribe(&self, id: &RoomId) {
        let offset = match timeout(SUBSCRIBE, self.0.bus.subscribe(id)).await {
            Ok(Ok(offset)) => Some(offset),
            Ok(Err(error)) => {
                warn!(room = %id, %error, "the room is filled when the bus is back");
                None
            }
            Err(_) => {
                warn!(room = %id, "the room is filled when the bus answers");
                None
            }
        };
        self.begin(id, offset);
    }

    /// The room begins at `offset`, or where the stream was last known to be, but not before an event of it that has come
    /// already: a backfill brings only the events before that one, so its members would miss that one. Under the lock, so
    /// that a stream reset in between cannot leave an offset of the old stream here.
    fn begin(&self, id: &RoomId, offset: Option<Offset>) {
        let entries = self.entries();
        if let Some(entry) = entries.get(id) {
            let known = self.0.bus.position().offset;
            let begins = offset.map_or(known, |offset| offset.min(known));
            let latest = entry.life.latest.load(Ordering::SeqCst);
            entry.life.begins.store(begins.0.max(latest), Ordering::SeqCst);
        }
    }

    /// The end of the stream. A connection that entered a room before the call gets what is stored later.
    pub async fn end(&self) -> Position {
        self.0.bus.end().await
    }

    /// From now on the workers get the feed's watermark, which is at least the offset returned here.
    #[must_use]
    pub fn follow(&self) -> (Follower, Offset) {
        // Dispatch stores the watermark before it counts followers; this counts first, then reads. So either dispatch sees
        // the follower, or this sees the new watermark.
        self.0.followers.fetch_add(1, Ordering::SeqCst);
        (Follower(self.clone()), Offset(self.0.watermark.load(Ordering::SeqCst)))
    }

    /// The events of these rooms after a position, and the offset through which they go; none where some of them are gone,
    /// or the bus is away.
    pub async fn replay(&self, rooms: &[RoomId], after: &Position) -> Option<(Replayed, Offset)> {
        match self.0.bus.replay(rooms, after).await {
            Ok(Replay::Events(events, through)) => Some((events, through)),
            Ok(Replay::Lost) => None,
            Err(error) => {
                warn!(%error, "a client that resumes is told that it cannot");
                None
            }
        }
    }

    /// An event as it goes to members; none where it goes to nobody.
    #[must_use]
    pub fn encode(&self, key: RoomKey, incoming: Incoming) -> Option<Delivery> {
        Delivery::encode(key, incoming, self.0.max_body, (&self.0.namespaces, self.epoch()))
    }

    /// The epoch of the stream that the feed is of.
    #[must_use]
    pub fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.0.epoch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The feed goes on with another stream.
    pub(super) fn read_epoch(&self) {
        let epoch = self.0.bus.position().epoch;
        *self.0.epoch.lock().unwrap_or_else(PoisonError::into_inner) = epoch.into();
    }

    /// The namespaces of Socket.IO's clients.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.0.namespaces
    }

    fn hold(&self, id: RoomId, worker: usize) -> RoomHold {
        let mut entries = self.entries();
        let entry = entries.entry(id.clone()).or_insert_with(|| {
            metrics::gauge!(names::ROOMS, "kind" => id.kind()).increment(1.0);
            Entry {
                key: RoomKey::new(self.0.made.fetch_add(1, Ordering::Relaxed)),
                life: Arc::default(),
                holds: vec![0; self.0.workers.count()].into(),
            }
        });
        entry.holds[worker] += 1;
        RoomHold { rooms: self.clone(), life: Arc::clone(&entry.life), key: entry.key, worker, id }
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, HashMap<RoomId, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
