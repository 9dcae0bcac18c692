//! The rooms that have members on this node. Each has one subscription, however many members it has.
//!
//! Invariant: a room is subscribed from before its first member's session is committed until its last member has left.
//! A worker learns of a member before it gets any event for that member, because both come through the same inbox.
//! Members get only events after the position at which their room began. A backfill may deliver some earlier events,
//! and a member that got those would miss others.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use rollcall_schema::{Offset, RoomId};
use tokio::{sync::OnceCell, time::timeout};
use tracing::warn;

use super::{Delivery, RoomKey, namespaces::Namespaces};
use rollcall_base::names;
use rollcall_bus::{Bus, Incoming, Position, Replay, Replayed};
use rollcall_websocket::SocketId;

/// How long a client waits for its room's subscription. If the bus takes longer, it fills the room afterwards.
const SUBSCRIBE: Duration = Duration::from_millis(500);

/// A command from the rooms to a worker.
pub enum RoomCommand {
    /// A handler adds this connection to a room. The room's events are buffered for the connection until the handler is
    /// done.
    AddMember {
        /// The connection.
        socket: SocketId,
        /// The room, which this hold keeps alive.
        room: RoomHold,
    },
    /// A handler reads the list of agents in the connection's rooms. The rooms' events are buffered for the connection
    /// until the handler is done.
    Hold(SocketId),
    /// An event for a room's members.
    Deliver(Arc<Delivery>),
    /// Every event through this offset has come.
    Watermark(Offset),
    /// Events through this offset may be missing.
    Gap(Offset),
    /// The offsets of another stream begin.
    StreamReset,
}

/// Sends commands of the rooms to the workers.
#[async_trait]
pub trait RoomWorkers: Send + Sync {
    /// Returns the number of workers.
    fn count(&self) -> usize;
    /// Sends a command to a worker. Waits if the worker's inbox is full. A worker gets commands in the order in which
    /// they were sent.
    async fn send(&self, worker: usize, command: RoomCommand);
}

/// All rooms that have members on this node. They are cheap to clone.
#[derive(Clone)]
pub struct Rooms(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) bus: Arc<dyn Bus>,
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
}

pub(super) struct Entry {
    pub(super) key: RoomKey,
    pub(super) life: Arc<Life>,
    /// How many holds each worker has. Events go to workers that have at least one.
    pub(super) holds: Box<[u32]>,
}

/// The life of a room, from its first member to its last.
#[derive(Default)]
pub(super) struct Life {
    subscribed: OnceCell<()>,
    /// Members get the events after this offset. It is set before the room has members.
    begins: AtomicU64,
    /// The highest offset of an event that came.
    latest: AtomicU64,
}

impl Life {
    fn has(&self, offset: Offset) -> bool {
        offset.0 > self.begins.load(Ordering::SeqCst)
    }

    /// Records that an event with this offset came. Returns whether the event is for members.
    pub(super) fn comes(&self, offset: Offset) -> bool {
        self.latest.fetch_max(offset.0, Ordering::SeqCst);
        self.has(offset)
    }

    /// Begins again with the offsets of another stream.
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
    /// Returns the room's number.
    #[must_use]
    pub fn key(&self) -> RoomKey {
        self.key
    }

    /// Returns the room's id.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// Returns whether an event with this offset is for the room's members. An event from before the room began may
    /// already have been on its way to a worker.
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
            // The lock is held, so that this call cannot come after the subscription of the room's next life.
            self.rooms.0.bus.unsubscribe(&self.id);
            metrics::gauge!(names::ROOMS, "kind" => self.id.kind()).decrement(1.0);
        }
    }
}

/// Connections that resume hold a follower. While there is a follower, the workers get the feed's watermark.
pub struct Follower(Rooms);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.0.bus.followers().fetch_sub(1, Ordering::SeqCst);
    }
}

impl Rooms {
    /// Returns whether the room has members on this node.
    #[must_use]
    pub fn has_members(&self, room: &RoomId) -> bool {
        self.entries().contains_key(room)
    }

    /// Creates a registry without rooms. Events with a body of more than `max_body` bytes are not forwarded.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, workers: Arc<dyn RoomWorkers>, max_body: usize) -> Self {
        Self::with_namespaces(bus, workers, max_body, Namespaces::default())
    }

    /// Creates a registry without rooms, for members that may be clients of Socket.IO in these namespaces.
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
        };
        Self(Arc::new(inner))
    }

    /// Enters a room, as `enter_room` of the seed does. When this call returns, the room's subscription is live (or
    /// pending, while the bus is away), and the room's events are buffered for the socket until its handler is done.
    pub async fn enter(&self, socket: SocketId, id: RoomId) {
        let room = self.hold(id, socket.worker());
        room.life.subscribed.get_or_init(|| self.subscribe(room.id())).await;
        self.0.workers.send(socket.worker(), RoomCommand::AddMember { socket, room }).await;
    }

    /// Holds back the events of the socket's rooms until its handler is done and its answer is sent. It must be called
    /// before the list of agents is read. An event that was sent before is then in the list, and an event that comes
    /// later is sent after the answer, even if it is older than the answer.
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

    /// Sets where the room begins: at `offset`, or at the last known position of the stream, but not before an event of
    /// the room that has already come. A backfill reads only the events before that event, so members would miss that
    /// event. The lock is held, so that a stream reset in between cannot leave an offset of the old stream here.
    fn begin(&self, id: &RoomId, offset: Option<Offset>) {
        let entries = self.entries();
        if let Some(entry) = entries.get(id) {
            let known = self.0.bus.position().offset;
            let begins = offset.map_or(known, |offset| offset.min(known));
            let latest = entry.life.latest.load(Ordering::SeqCst);
            entry.life.begins.store(begins.0.max(latest), Ordering::SeqCst);
        }
    }

    /// Returns the end of the stream. A connection that entered a room before the call gets all later events.
    pub async fn end(&self) -> Position {
        self.0.bus.end().await
    }

    /// Returns the end of the stream, as [`Rooms::end`] does, for a client that is told this position. Returns `None` if
    /// the stream was created again and the workers do not know yet: until then the client may be sent offsets of the
    /// earlier stream, and if it resumed after one of them in the new stream, it would miss the events before that.
    pub async fn end_of_feed(&self) -> Option<Position> {
        let end = self.end().await;
        (*end.epoch == *self.epoch()).then_some(end)
    }

    /// Sends the feed's watermark to the workers from now on. The watermark is at least the returned offset.
    #[must_use]
    pub fn follow(&self) -> (Follower, Offset) {
        // Dispatch stores the watermark before it reads the number of followers. This function increases the number of
        // followers before it reads the watermark. So either dispatch sees the follower, or this function sees the new
        // watermark.
        self.0.bus.followers().fetch_add(1, Ordering::SeqCst);
        (Follower(self.clone()), Offset(self.0.watermark.load(Ordering::SeqCst)))
    }

    /// Returns the events of these rooms after a position, and the offset through which they go. Returns `None` if some
    /// of them are gone, or the bus is away.
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

    /// Returns an event in the form for members, or `None` if no member gets it.
    #[must_use]
    pub fn encode(&self, key: RoomKey, incoming: Incoming) -> Option<Delivery> {
        Delivery::encode(key, incoming, self.0.max_body, (&self.0.namespaces, self.epoch()))
    }

    /// Returns the epoch of the feed's stream.
    #[must_use]
    pub fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.0.epoch.lock())
    }

    /// Reads the epoch of the feed's stream again, because the stream is a different one.
    pub(super) fn read_epoch(&self) {
        let epoch = self.0.bus.position().epoch;
        *self.0.epoch.lock() = epoch.into();
    }

    /// Returns the namespaces of Socket.IO's clients.
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
        self.0.entries.lock()
    }
}
