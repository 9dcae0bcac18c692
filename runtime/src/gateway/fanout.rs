//! A worker's rooms: who is in them, and the sending of what is ready in one piece (PROTOCOL 3).
//!
//! Invariant: a member gets the events of its two rooms in the order of their offsets; one who stands at a room's door
//! gets nothing of it until it is in, and then all that came since it stood there.
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
};

use bytes::{Bytes, BytesMut};
use rollcall_schema::{AgentId, LessonId, RoomId, SessionId};

use super::peer::Peer;
use crate::{
    delivery::Delivery,
    names,
    rooms::{RoomHold, RoomKey},
    session::Session,
    socket::{Socket, SocketId, Sockets},
};

/// Events that are kept for one at the door; with more, the oldest are dropped and counted.
const MAX_HELD: usize = 1_024;

/// Stands for an agent's id in comparisons: 64 bits under a key of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentMark(std::num::NonZeroU64);

impl AgentMark {
    /// An agent's.
    #[must_use]
    pub fn of(agent: &AgentId) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(std::num::NonZeroU64::MIN.saturating_add(KEY.hash_one(agent) >> 1))
    }
}

/// A room at whose door a connection stands, and what came for it.
pub struct Entering {
    /// Which.
    pub room: RoomKey,
    held: Vec<Arc<Delivery>>,
}

struct LocalRoom {
    hold: RoomHold,
    members: Vec<SocketId>,
    ready: Vec<Arc<Delivery>>,
}

/// A worker's rooms.
#[derive(Default)]
pub struct Fanout {
    rooms: HashMap<RoomKey, LocalRoom>,
    /// Rooms with something ready, in the order in which it came.
    dirty: Vec<RoomKey>,
}

impl Fanout {
    /// A connection stands at a room's door.
    pub fn enter(&mut self, sockets: &mut Sockets<Peer>, id: SocketId, hold: RoomHold) {
        let Some(socket) = sockets.get_mut(id) else { return };
        let room = hold.key();
        if socket.peer.rooms().any(|inside| inside == room) {
            return;
        }
        socket.peer.extra().entering.push(Entering { room, held: Vec::new() });
        let room = self.rooms.entry(room).or_insert_with(|| LocalRoom { hold, members: Vec::new(), ready: Vec::new() });
        room.members.push(id);
    }

    /// The connection's rooms become what its session says; what was held at the door follows.
    pub fn settle(&mut self, socket: &mut Socket<'_, Peer>, session: &Session) {
        let id = socket.id();
        let lesson = session.place.as_ref().map(|place| &place.lesson);
        if let Some(old) = socket.peer.lesson.filter(|key| self.lesson(*key) != lesson) {
            socket.peer.lesson = None;
            self.leave(id, old);
        }
        let entering = socket.peer.extra.as_mut().map(|extra| std::mem::take(&mut extra.entering)).unwrap_or_default();
        let mut held = Vec::new();
        for Entering { room, held: at_door } in entering {
            match self.rooms.get(&room).map(|room| room.hold.id()) {
                Some(RoomId::Classroom(_)) => socket.peer.classroom = Some(room),
                Some(RoomId::Lesson(id)) if Some(id) == lesson => socket.peer.lesson = Some(room),
                Some(RoomId::Lesson(_)) | None => {
                    self.leave(id, room);
                    continue;
                }
            }
            held.extend(at_door);
        }
        held.sort_by_key(|delivery| delivery.offset());
        let mut batch = Batch::default();
        for delivery in &held {
            batch.add(delivery);
        }
        batch.send(socket).count();
        socket.peer.trim();
    }

    /// The connection is over.
    pub fn gone(&mut self, id: SocketId, peer: &Peer) {
        for key in peer.rooms() {
            self.leave(id, key);
        }
    }

    /// The rooms that a connection is in.
    #[must_use]
    pub fn rooms_of(&self, peer: &Peer) -> Vec<RoomId> {
        peer.rooms().filter_map(|key| self.rooms.get(&key)).map(|room| room.hold.id().clone()).collect()
    }

    fn lesson(&self, key: RoomKey) -> Option<&LessonId> {
        match self.rooms.get(&key)?.hold.id() {
            RoomId::Lesson(id) => Some(id),
            RoomId::Classroom(_) => None,
        }
    }

    /// An event for a room's members, sent at the next [`Fanout::flush`].
    pub fn deliver(&mut self, delivery: Arc<Delivery>) {
        let Some(room) = self.rooms.get_mut(&delivery.room) else { return };
        if room.ready.is_empty() {
            self.dirty.push(delivery.room);
        }
        room.ready.push(delivery);
    }

    /// Sends what is ready: to each member one piece, however many events of its rooms are in it.
    pub fn flush(&mut self, sockets: &mut Sockets<Peer>) {
        if self.dirty.is_empty() {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let mut batches: HashMap<RoomKey, Batch> = HashMap::with_capacity(dirty.len());
        for key in &dirty {
            let Some(room) = self.rooms.get_mut(key) else { continue };
            let mut batch = Batch::default();
            for delivery in std::mem::take(&mut room.ready) {
                delivery.record_age();
                batch.add(&delivery);
            }
            batches.insert(*key, batch);
        }
        let mut sent = Sent::default();
        for key in &dirty {
            let Some(room) = self.rooms.get(key) else { continue };
            for id in &room.members {
                let Some(mut socket) = sockets.get_mut(*id) else { continue };
                sent.add(send_to(&mut socket, *key, &mut batches));
            }
        }
        sent.count();
    }

    fn leave(&mut self, id: SocketId, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        if let Some(place) = room.members.iter().position(|member| *member == id) {
            room.members.swap_remove(place);
        }
        if room.members.is_empty() {
            self.rooms.remove(&key);
        }
    }
}

/// Sends a room's batch to a member, once for both of its rooms.
fn send_to(socket: &mut Socket<'_, Peer>, key: RoomKey, batches: &mut HashMap<RoomKey, Batch>) -> Sent {
    let peer = &mut *socket.peer;
    let door = peer.extra.as_mut().and_then(|extra| extra.entering.iter_mut().find(|entering| entering.room == key));
    if let Some(entering) = door {
        let Some(batch) = batches.get(&key) else { return Sent::default() };
        let room = MAX_HELD.saturating_sub(entering.held.len());
        entering.held.extend(batch.deliveries.iter().take(room).cloned());
        let dropped = batch.deliveries.len().saturating_sub(room);
        if dropped > 0 {
            metrics::counter!(names::DROPPED, "reason" => "held_too_many").increment(dropped as u64);
        }
        return Sent::default();
    }
    let other = if peer.lesson == Some(key) { peer.classroom } else { peer.lesson };
    match other.filter(|other| batches.contains_key(other)) {
        // Both rooms have something: the classroom's turn takes both, in order.
        Some(_) if peer.lesson == Some(key) => Sent::default(),
        Some(other) => {
            let mut both = Batch::default();
            let mut deliveries: Vec<_> = [key, other].iter().flat_map(|key| batches[key].deliveries.iter()).collect();
            deliveries.sort_by_key(|delivery| delivery.offset());
            for delivery in deliveries {
                both.add(delivery);
            }
            both.send(socket)
        }
        None => batches.get_mut(&key).map(|batch| batch.send(socket)).unwrap_or_default(),
    }
}

/// How much was sent: summed up here, since a look-up of a metric for each send would cost more than some sends.
#[derive(Default)]
struct Sent {
    pushes: u64,
    bytes: u64,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.pushes += other.pushes;
        self.bytes += other.bytes;
    }

    fn count(self) {
        metrics::counter!(names::PUSHES).increment(self.pushes);
        metrics::counter!(names::PUSH_BYTES).increment(self.bytes);
    }
}

/// Events that are sent in one piece, and that piece for whoever gets all of them.
#[derive(Default)]
struct Batch {
    deliveries: Vec<Arc<Delivery>>,
    /// Agents that one of them is from or for.
    addressed: Vec<AgentMark>,
    /// Whether one of them is for one agent alone.
    private: bool,
    /// The oldest session of which one of them is the entered.
    oldest: Option<SessionId>,
    plain: Option<Bytes>,
}

impl Batch {
    fn add(&mut self, delivery: &Arc<Delivery>) {
        self.addressed.extend(delivery.sender.into_iter().chain(delivery.receiver));
        self.private |= delivery.receiver.is_some();
        self.oldest = self.oldest.into_iter().chain(delivery.entered).min();
        self.deliveries.push(Arc::clone(delivery));
    }

    fn send(&mut self, socket: &mut Socket<'_, Peer>) -> Sent {
        let Some(last) = self.deliveries.last() else { return Sent::default() };
        if let Some(replaying) = socket.peer.extra.as_mut().and_then(|extra| extra.replaying.as_mut()) {
            replaying.missed = replaying.missed.max(Some(last.offset()));
            return Sent::default();
        }
        let (mark, offset) = (socket.peer.mark, socket.peer.offset());
        let since = socket.peer.since;
        let late = self.oldest.is_some_and(|oldest| oldest < since);
        let mine = mark.is_some_and(|mark| self.addressed.contains(&mark));
        let for_all = offset.is_none() && !self.private && !late && !mine;
        let (piece, count) = if for_all {
            (
                self.plain
                    .get_or_insert_with(|| join(self.deliveries.iter().map(|delivery| delivery.frame(false))))
                    .clone(),
                self.deliveries.len(),
            )
        } else {
            let mine = |delivery: &&Arc<Delivery>| {
                delivery.is_for(mark, since) && offset.is_none_or(|last| delivery.offset() > last)
            };
            let count = self.deliveries.iter().filter(mine).count();
            (join(self.deliveries.iter().filter(mine).map(|delivery| delivery.frame(offset.is_some()))), count)
        };
        if offset.is_some() {
            socket.peer.extra().offset = offset.max(Some(last.offset()));
        }
        if count > 0 {
            socket.send_frames(&piece);
        }
        Sent { pushes: count as u64, bytes: piece.len() as u64 }
    }
}

/// Frames in one piece; a single one is not copied.
fn join<'a>(mut frames: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let Some(first) = frames.next() else { return Bytes::new() };
    let Some(second) = frames.next() else { return first.clone() };
    let mut piece = BytesMut::from(&first[..]);
    piece.extend_from_slice(second);
    for frame in frames {
        piece.extend_from_slice(frame);
    }
    piece.freeze()
}
