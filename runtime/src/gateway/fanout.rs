//! A worker's rooms: who is in them, and the sending of what is ready in one piece (PROTOCOL 3).
//!
//! Invariant: a member gets the events of its two rooms as they come, and one who resumes in the order of their offsets,
//! as soon as they are settled; one who stands at a room's door gets nothing of it until it is in, and then all that came
//! since it stood there.
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
};

use rollcall_schema::{AgentId, LessonId, Offset, RoomId};

use super::{
    batch::{Batch, Sent, send_in_order, send_settled_to, send_to},
    peer::Peer,
};
use crate::{
    handler::session::Session,
    rooms::{RoomHold, RoomKey, delivery::Delivery},
};
use rollcall_websocket::{Socket, SocketId, Sockets};

/// Events of a room that are kept until they are settled; with more, they are sent as if they were.
const MAX_KEPT: usize = 4_096;

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
pub struct JoinBuffer {
    /// Which.
    pub room: RoomKey,
    pub(super) held: Vec<Arc<Delivery>>,
    /// Some was not kept.
    pub(super) overflowed: bool,
}

struct LocalRoom {
    hold: RoomHold,
    /// Who gets events at once, and who stands at the door.
    members: Vec<SocketId>,
    ready: Vec<Arc<Delivery>>,
    /// Most rooms have nobody who resumes.
    resuming: Option<Box<Resuming>>,
}

/// A room's members who resume, and what is kept for them until nothing can come any more that belongs before it.
#[derive(Default)]
struct Resuming {
    members: Vec<SocketId>,
    kept: Vec<Arc<Delivery>>,
}

/// A worker's rooms.
#[derive(Default)]
pub struct Fanout {
    rooms: HashMap<RoomKey, LocalRoom>,
    /// Rooms with something ready, in the order in which it came.
    dirty: Vec<RoomKey>,
    /// Rooms with something kept.
    keeping: Vec<RoomKey>,
    /// Up to where events are settled, as the feed says.
    told: u64,
    /// Up to where settled events have been sent.
    settled: u64,
}

impl Fanout {
    /// A connection stands at a room's door.
    pub fn enter(&mut self, sockets: &mut Sockets<Peer>, id: SocketId, hold: RoomHold) {
        let Some(socket) = sockets.get_mut(id) else { return };
        let room = hold.key();
        if socket.peer.rooms().any(|inside| inside == room) {
            return;
        }
        socket.peer.extra().entering.push(JoinBuffer { room, held: Vec::new(), overflowed: false });
        let new = || LocalRoom { hold, members: Vec::new(), ready: Vec::new(), resuming: None };
        self.rooms.entry(room).or_insert_with(new).members.push(id);
    }

    /// The connection's rooms become what its session says; what was held at the door follows. False where that is not
    /// all that came: its client must be told. Of a lesson that a connection joins which resumes already, events after
    /// `begins` come, and no others: its client was told so.
    #[must_use]
    pub fn settle(&mut self, socket: &mut Socket<'_, Peer>, session: &Session, begins: Option<Offset>) -> bool {
        let id = socket.id();
        let lesson = session.place.as_ref().map(|place| &place.lesson);
        if let Some(old) = socket.peer.lesson.filter(|key| self.lesson(*key) != lesson) {
            socket.peer.lesson = None;
            self.leave(id, old);
        }
        let entering = socket.peer.extra.as_mut().map(|extra| std::mem::take(&mut extra.entering)).unwrap_or_default();
        let resumes = socket.peer.reached().is_some();
        let (mut held, mut whole) = (Vec::new(), true);
        for JoinBuffer { room, held: at_door, overflowed } in entering {
            held.extend(at_door);
            whole &= !overflowed;
            match self.id(room) {
                Some(RoomId::Classroom(_)) => socket.peer.classroom = Some(room),
                Some(RoomId::Lesson(id)) if Some(id) == lesson => {
                    socket.peer.lesson = Some(room);
                    if let Some((extra, here)) = socket.peer.extra.as_mut().zip(begins) {
                        extra.enter_lesson(here);
                    }
                }
                Some(RoomId::Lesson(_)) | None => {
                    self.leave(id, room);
                    continue;
                }
            }
            if resumes {
                self.put_in_order(id, room);
            }
        }
        held.retain(|delivery| socket.peer.rooms().any(|room| room == delivery.room));
        held.sort_by_key(|delivery| delivery.offset());
        if resumes {
            let settled = held.partition_point(|delivery| delivery.offset().0 <= self.settled);
            for delivery in held.drain(settled..) {
                self.keep(delivery);
            }
            send_in_order(socket, &held).count();
        } else {
            let mut batch = Batch::default();
            held.iter().for_each(|delivery| batch.add(delivery));
            batch.send(socket).count();
        }
        socket.peer.trim();
        whole
    }

    /// A member turns out to be one who resumes.
    fn put_in_order(&mut self, id: SocketId, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        remove(&mut room.members, id);
        room.resuming.get_or_insert_default().members.push(id);
    }

    /// Keeps an event that came before its room had anybody who resumes, or is there already.
    fn keep(&mut self, delivery: Arc<Delivery>) {
        let Some(room) = self.rooms.get_mut(&delivery.room) else { return };
        let kept = &mut room.resuming.get_or_insert_default().kept;
        if kept.is_empty() {
            self.keeping.push(delivery.room);
        }
        if kept.iter().all(|other| other.offset() != delivery.offset()) {
            kept.push(delivery);
        }
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
        peer.rooms().filter_map(|key| self.id(key).cloned()).collect()
    }

    /// Whether a connection is in a room that began before this offset.
    #[must_use]
    pub fn is_concerned(&self, peer: &Peer, upto: Offset) -> bool {
        peer.rooms().any(|key| self.rooms.get(&key).is_some_and(|room| room.hold.has(upto)))
    }

    /// Which of a connection's rooms this is.
    #[must_use]
    pub fn key_in(&self, peer: &Peer, room: &RoomId) -> Option<RoomKey> {
        peer.rooms().find(|key| self.id(*key) == Some(room))
    }

    /// A room's.
    #[must_use]
    pub fn id(&self, key: RoomKey) -> Option<&RoomId> {
        self.rooms.get(&key).map(|room| room.hold.id())
    }

    fn lesson(&self, key: RoomKey) -> Option<&LessonId> {
        match self.id(key)? {
            RoomId::Lesson(id) => Some(id),
            RoomId::Classroom(_) => None,
        }
    }

    /// An event for a room's members, sent at the next [`Fanout::flush`].
    pub fn deliver(&mut self, delivery: Arc<Delivery>) {
        let Some(room) = self.rooms.get_mut(&delivery.room).filter(|room| room.hold.has(delivery.offset())) else {
            return;
        };
        if room.ready.is_empty() {
            self.dirty.push(delivery.room);
        }
        room.ready.push(delivery);
    }

    /// Every event up to here has come: the next [`Fanout::flush`] sends it to those who waited for that.
    pub fn settled(&mut self, upto: Offset) {
        self.told = self.told.max(upto.0);
    }

    /// Offsets start again.
    pub fn start_again(&mut self) {
        (self.told, self.settled) = (0, 0);
        self.rooms.values_mut().filter_map(|room| room.resuming.as_mut()).for_each(|resuming| resuming.kept.clear());
    }

    /// Sends what is ready: to each member one piece, however many events of its rooms are in it.
    pub fn flush(&mut self, sockets: &mut Sockets<Peer>) {
        if self.dirty.is_empty() && self.told == self.settled {
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
            if let Some(resuming) = &mut room.resuming {
                if resuming.kept.is_empty() {
                    self.keeping.push(*key);
                }
                resuming.kept.extend_from_slice(batch.deliveries());
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
        self.settled = self.told;
        self.flush_settled(sockets, &mut sent);
        sent.count();
    }

    /// Sends what was kept and is settled now, in the stream's order.
    fn flush_settled(&mut self, sockets: &mut Sockets<Peer>, sent: &mut Sent) {
        let keeping = std::mem::take(&mut self.keeping);
        let mut batches = HashMap::with_capacity(keeping.len());
        for key in keeping {
            let Some(resuming) = self.rooms.get_mut(&key).and_then(|room| room.resuming.as_mut()) else { continue };
            // Noted twice, where it had nothing in between.
            if batches.contains_key(&key) {
                continue;
            }
            let all = resuming.kept.len() > MAX_KEPT;
            let mut due: Vec<_> =
                resuming.kept.extract_if(.., |delivery| all || delivery.offset().0 <= self.settled).collect();
            due.sort_by_key(|delivery| delivery.offset());
            if !resuming.kept.is_empty() {
                self.keeping.push(key);
            }
            batches.insert(key, due);
        }
        for key in batches.keys() {
            let Some(resuming) = self.rooms.get(key).and_then(|room| room.resuming.as_ref()) else { continue };
            for id in &resuming.members {
                let Some(mut socket) = sockets.get_mut(*id) else { continue };
                sent.add(send_settled_to(&mut socket, *key, &batches));
            }
        }
    }

    fn leave(&mut self, id: SocketId, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        remove(&mut room.members, id);
        if let Some(resuming) = &mut room.resuming {
            remove(&mut resuming.members, id);
            if resuming.members.is_empty() {
                room.resuming = None;
            }
        }
        if room.members.is_empty() && room.resuming.is_none() {
            self.rooms.remove(&key);
        }
    }
}

fn remove(members: &mut Vec<SocketId>, id: SocketId) {
    if let Some(place) = members.iter().position(|member| *member == id) {
        members.swap_remove(place);
    }
}
