//! The rooms of a worker: their members, and the sending of each room's events with one write for each member (PROTOCOL
//! 3).
//!
//! Invariant: a member gets the events of its two rooms as they come. A member that resumes gets them in the order of
//! their offsets, as soon as the watermark has passed them. A connection that joins a room gets none of the room's
//! events until the join has succeeded, and then gets all events since the join began. A connection that reads the list
//! of agents in its rooms gets none of their events until it has its answer, and then gets all of them.
use std::{collections::HashMap, sync::Arc};

use rollcall_schema::{LessonId, Offset, RoomId};

use super::{
    batch::{Batch, Sent, send_in_order},
    join_buffer::JoinBuffer,
    peer::Peer,
    reorder_buffer::ReorderBuffer,
    room_order::{send_rooms, send_rooms_in_order},
};
use crate::{
    handler::session::Session,
    rooms::{Delivery, RoomHold, RoomKey},
};
use rollcall_websocket::{Socket, SocketId, Sockets};

struct LocalRoom {
    hold: RoomHold,
    /// The members that get events at once, and the connections that join the room.
    members: Vec<SocketId>,
    ready: Vec<Arc<Delivery>>,
    /// `None` for most rooms, because they have no members that resume.
    resuming: Option<Box<Resuming>>,
}

/// The members of a room that resume, and the events that wait for the watermark.
#[derive(Default)]
struct Resuming {
    members: Vec<SocketId>,
    buffer: ReorderBuffer,
}

/// A worker's rooms.
pub(super) struct Fanout {
    rooms: HashMap<RoomKey, LocalRoom>,
    /// The rooms with events to send, in the order in which the events came.
    dirty: Vec<RoomKey>,
    /// The rooms with events in their reorder buffer.
    reordering: Vec<RoomKey>,
    /// The offset through which every event has come.
    watermark: Offset,
    /// The watermark at the last flush. All events through it have been sent.
    flushed: Offset,
}

impl Fanout {
    /// Creates a worker's rooms, of which there are none yet.
    pub(super) fn new() -> Self {
        let none = Offset(0);
        Self { rooms: HashMap::new(), dirty: Vec::new(), reordering: Vec::new(), watermark: none, flushed: none }
    }

    /// Records that a connection joins a room.
    pub(super) fn add_member(&mut self, sockets: &mut Sockets<Peer>, id: SocketId, hold: RoomHold) {
        let Some(socket) = sockets.get_mut(id) else { return };
        let room = hold.key();
        if socket.peer.rooms().any(|inside| inside == room) {
            return;
        }
        let cold = socket.peer.cold_mut();
        cold.buffer(JoinBuffer::joining(room));
        let new = || LocalRoom { hold, members: Vec::new(), ready: Vec::new(), resuming: None };
        self.rooms.entry(room).or_insert_with(new).members.push(id);
    }

    /// Buffers the events of a connection's rooms while the connection reads the list of agents there.
    pub(super) fn hold(&mut self, sockets: &mut Sockets<Peer>, id: SocketId) {
        let Some(socket) = sockets.get_mut(id) else { return };
        // Both rooms are buffered, because the events of both are sent together.
        for room in [socket.peer.classroom, socket.peer.lesson].into_iter().flatten() {
            socket.peer.cold_mut().buffer(JoinBuffer::holding(room));
        }
    }

    /// Puts the connection into the rooms that its session names, and sends the buffered events. Returns false if some
    /// events were dropped: then the connection must be closed. `begins` is `Some` if a connection that resumes joined
    /// a lesson: the connection gets the lesson's events after that offset, as its client was told.
    #[must_use]
    pub(super) fn apply_session(
        &mut self,
        socket: &mut Socket<'_, Peer>,
        session: &Session,
        begins: Option<Offset>,
    ) -> bool {
        let id = socket.id();
        let lesson = session.lesson();
        if let Some(old) = socket.peer.lesson.filter(|key| self.lesson(*key) != lesson) {
            socket.peer.lesson = None;
            self.leave(id, old);
        }
        let buffers = socket.peer.cold.as_mut().map(|cold| std::mem::take(&mut cold.join_buffers)).unwrap_or_default();
        let resumes = socket.peer.cursor().is_some();
        let (mut buffered, mut whole) = (Vec::new(), true);
        for JoinBuffer { room, is_member, deliveries, overflowed } in buffers {
            buffered.extend(deliveries);
            whole &= !overflowed;
            if is_member {
                continue;
            }
            match self.room_id(room) {
                Some(RoomId::Classroom(_)) => socket.peer.classroom = Some(room),
                Some(RoomId::Lesson(id)) if Some(id) == lesson => {
                    socket.peer.lesson = Some(room);
                    if let Some((cold, begins)) = socket.peer.cold.as_mut().zip(begins) {
                        cold.start_lesson(begins);
                    }
                }
                Some(RoomId::Lesson(_)) | None => {
                    self.leave(id, room);
                    continue;
                }
            }
            if resumes {
                self.move_to_resuming(id, room);
            }
        }
        buffered.retain(|delivery| socket.peer.rooms().any(|room| room == delivery.room));
        buffered.sort_by_key(|delivery| delivery.offset());
        if resumes {
            let due = buffered.partition_point(|delivery| delivery.offset() <= self.flushed);
            for delivery in buffered.drain(due..) {
                self.reorder(delivery);
            }
            send_in_order(socket, &buffered).count();
        } else {
            let mut batch = Batch::default();
            buffered.iter().for_each(|delivery| batch.add(delivery));
            batch.send(socket).count();
        }
        socket.peer.trim();
        whole
    }

    /// Removes the connection from its classroom.
    pub(super) fn leave_classroom(&mut self, socket: &mut Socket<'_, Peer>) {
        if let Some(room) = socket.peer.classroom.take() {
            self.leave(socket.id(), room);
        }
    }

    /// Removes the connection from the classroom that it was about to enter.
    pub(super) fn abandon_classroom(&mut self, socket: &mut Socket<'_, Peer>) {
        let Some(cold) = &mut socket.peer.cold else { return };
        let is_classroom = |room| matches!(self.room_id(room), Some(RoomId::Classroom(_)));
        let abandoned: Vec<_> = cold.join_buffers.extract_if(.., |buffer| is_classroom(buffer.room)).collect();
        abandoned.iter().for_each(|buffer| self.leave(socket.id(), buffer.room));
    }

    /// Removes the connection from the rooms that it was about to enter, because the join failed.
    pub(super) fn abandon_joins(&mut self, socket: &mut Socket<'_, Peer>) {
        let buffers = socket.peer.cold.as_mut().map(|cold| std::mem::take(&mut cold.join_buffers)).unwrap_or_default();
        buffers.iter().for_each(|buffer| self.leave(socket.id(), buffer.room));
        socket.peer.trim();
    }

    /// Moves a member to the members that resume.
    fn move_to_resuming(&mut self, id: SocketId, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        remove(&mut room.members, id);
        room.resuming.get_or_insert_default().members.push(id);
    }

    /// Puts an event into its room's reorder buffer unless the buffer already has it. The event came before the room
    /// had members that resume.
    fn reorder(&mut self, delivery: Arc<Delivery>) {
        let Some(room) = self.rooms.get_mut(&delivery.room) else { return };
        let buffer = &mut room.resuming.get_or_insert_default().buffer;
        if buffer.is_empty() {
            self.reordering.push(delivery.room);
        }
        buffer.push_new(delivery);
    }

    /// Removes a connection that has ended from its rooms.
    pub(super) fn remove_member(&mut self, id: SocketId, peer: &Peer) {
        for key in peer.rooms() {
            self.leave(id, key);
        }
    }

    /// Returns the rooms that a connection is in.
    pub(super) fn rooms_of(&self, peer: &Peer) -> Vec<RoomId> {
        peer.rooms().filter_map(|key| self.room_id(key).cloned()).collect()
    }

    /// Returns whether a connection is in a room that began before this offset.
    pub(super) fn has_room_from_before(&self, peer: &Peer, offset: Offset) -> bool {
        peer.rooms().any(|key| self.rooms.get(&key).is_some_and(|room| room.hold.has(offset)))
    }

    /// Returns the key of a room if the connection is in the room.
    pub(super) fn key_in(&self, peer: &Peer, room: &RoomId) -> Option<RoomKey> {
        peer.rooms().find(|key| self.room_id(*key) == Some(room))
    }

    /// Returns the id of a room.
    pub(super) fn room_id(&self, key: RoomKey) -> Option<&RoomId> {
        self.rooms.get(&key).map(|room| room.hold.id())
    }

    fn lesson(&self, key: RoomKey) -> Option<&LessonId> {
        match self.room_id(key)? {
            RoomId::Lesson(id) => Some(id),
            RoomId::Classroom(_) => None,
        }
    }

    /// Keeps an event for the members of its room until the next [`Fanout::flush`].
    pub(super) fn deliver(&mut self, delivery: Arc<Delivery>) {
        let Some(room) = self.rooms.get_mut(&delivery.room).filter(|room| room.hold.has(delivery.offset())) else {
            return;
        };
        if room.ready.is_empty() {
            self.dirty.push(delivery.room);
        }
        room.ready.push(delivery);
    }

    /// Records that every event through this offset has come. The next [`Fanout::flush`] sends these events to members
    /// that resume.
    pub(super) fn set_watermark(&mut self, through: Offset) {
        self.watermark = self.watermark.max(through);
    }

    /// Returns the offset through which events have been sent to the members that resume.
    pub(super) fn flushed(&self) -> Offset {
        self.flushed
    }

    /// Begins again with the offsets of another stream.
    pub(super) fn stream_reset(&mut self) {
        (self.watermark, self.flushed) = (Offset(0), Offset(0));
        self.rooms.values_mut().filter_map(|room| room.resuming.as_mut()).for_each(|resuming| resuming.buffer.clear());
    }

    /// Sends all waiting events. Each member gets the events of its rooms with one write.
    pub(super) fn flush(&mut self, sockets: &mut Sockets<Peer>) {
        if self.dirty.is_empty() && self.watermark == self.flushed {
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
                if resuming.buffer.is_empty() {
                    self.reordering.push(*key);
                }
                resuming.buffer.extend(batch.deliveries());
            }
            batches.insert(*key, batch);
        }
        let mut sent = Sent::default();
        for key in &dirty {
            let Some(room) = self.rooms.get(key) else { continue };
            for id in &room.members {
                let Some(mut socket) = sockets.get_mut(*id) else { continue };
                sent.add(send_rooms(&mut socket, *key, &mut batches));
            }
        }
        self.flushed = self.watermark;
        self.flush_reordered(sockets, &mut sent);
        sent.count();
    }

    /// Sends the events that the watermark has passed, in the stream's order.
    fn flush_reordered(&mut self, sockets: &mut Sockets<Peer>, sent: &mut Sent) {
        let reordering = std::mem::take(&mut self.reordering);
        let mut batches = HashMap::with_capacity(reordering.len());
        for key in reordering {
            let Some(resuming) = self.rooms.get_mut(&key).and_then(|room| room.resuming.as_mut()) else { continue };
            // A room is in the list twice if its buffer was empty in between.
            if batches.contains_key(&key) {
                continue;
            }
            batches.insert(key, resuming.buffer.take_through(self.flushed));
            if !resuming.buffer.is_empty() {
                self.reordering.push(key);
            }
        }
        for key in batches.keys() {
            let Some(resuming) = self.rooms.get(key).and_then(|room| room.resuming.as_ref()) else { continue };
            for id in &resuming.members {
                let Some(mut socket) = sockets.get_mut(*id) else { continue };
                sent.add(send_rooms_in_order(&mut socket, *key, &batches));
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
    if let Some(index) = members.iter().position(|member| *member == id) {
        members.swap_remove(index);
    }
}
