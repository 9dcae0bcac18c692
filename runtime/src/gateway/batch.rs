//! Events that go to a member in one piece.
use std::{collections::HashMap, sync::Arc};

use super::{fanout::AgentMark, peer::Peer};
use crate::rooms::{RoomKey, delivery::Delivery};
use bytes::{Bytes, BytesMut};
use rollcall_base::names;
use rollcall_websocket::Socket;

/// Events that are kept for one at the door; with more, the newest are dropped and counted, and who stood there comes
/// again. They are shared by all who stand there.
const MAX_HELD: usize = 8_192;

/// How much was sent: summed up here, since a look-up of a metric for each send would cost more than some sends.
#[derive(Default)]
pub(super) struct Sent {
    pushes: u64,
    bytes: u64,
}

impl Sent {
    pub(super) fn add(&mut self, other: Self) {
        self.pushes += other.pushes;
        self.bytes += other.bytes;
    }

    pub(super) fn count(self) {
        metrics::counter!(names::PUSHES).increment(self.pushes);
        metrics::counter!(names::PUSH_BYTES).increment(self.bytes);
    }
}

/// Events that are sent in one piece, and that piece for whoever gets all of them.
#[derive(Default)]
pub(super) struct Batch {
    deliveries: Vec<Arc<Delivery>>,
    /// Agents that one of them is from or for.
    addressed: Vec<AgentMark>,
    /// Whether one of them is for one agent alone.
    private: bool,
    plain: Option<Bytes>,
}

impl Batch {
    pub(super) fn add(&mut self, delivery: &Arc<Delivery>) {
        self.addressed.extend(delivery.sender.into_iter().chain(delivery.receiver));
        self.private |= delivery.receiver.is_some();
        self.deliveries.push(Arc::clone(delivery));
    }

    /// What is in it, in the order of its coming.
    pub(super) fn deliveries(&self) -> &[Arc<Delivery>] {
        &self.deliveries
    }

    /// Sends it to a member who does not resume.
    pub(super) fn send(&mut self, socket: &mut Socket<'_, Peer>) -> Sent {
        let viewer = socket.peer.mark;
        let addressed = viewer.is_some_and(|mark| self.addressed.contains(&mark));
        let (piece, count) = if self.private || addressed {
            let mine = |delivery: &&Arc<Delivery>| delivery.is_for(viewer);
            let count = self.deliveries.iter().filter(mine).count();
            (join(self.deliveries.iter().filter(mine).map(|delivery| delivery.plain())), count)
        } else {
            let all = || join(self.deliveries.iter().map(|delivery| delivery.plain()));
            (self.plain.get_or_insert_with(all).clone(), self.deliveries.len())
        };
        piece_sent(socket, &piece, count)
    }
}

/// Sends settled events, in the stream's order, to a member who resumes.
pub(super) fn send_in_order<'a>(
    socket: &mut Socket<'_, Peer>,
    deliveries: impl IntoIterator<Item = &'a Arc<Delivery>>,
) -> Sent {
    let (viewer, lesson) = (socket.peer.mark, socket.peer.lesson);
    let Some(extra) = &mut socket.peer.extra else { return Sent::default() };
    let Some(reached) = &mut extra.reached else { return Sent::default() };
    let mut frames = Vec::new();
    for delivery in deliveries {
        let offset = delivery.offset();
        if let Some(replaying) = &mut extra.replaying {
            replaying.missed = replaying.missed.max(Some(offset));
        } else if reached.lacks(offset, lesson == Some(delivery.room)) {
            if delivery.is_for(viewer) {
                frames.push(delivery.resumable(reached.last));
            }
            reached.last = offset.max(reached.last);
        }
    }
    piece_sent(socket, &join(frames.iter()), frames.len())
}

fn piece_sent(socket: &mut Socket<'_, Peer>, piece: &Bytes, count: usize) -> Sent {
    if count > 0 {
        socket.send_frames(piece);
    }
    Sent { pushes: count as u64, bytes: piece.len() as u64 }
}

/// Sends a room's batch to a member, once for both of its rooms.
pub(super) fn send_to(socket: &mut Socket<'_, Peer>, key: RoomKey, batches: &mut HashMap<RoomKey, Batch>) -> Sent {
    let peer = &mut *socket.peer;
    let door = peer.extra.as_mut().and_then(|extra| extra.entering.iter_mut().find(|entering| entering.room == key));
    if let Some(entering) = door {
        let Some(batch) = batches.get(&key) else { return Sent::default() };
        let room = MAX_HELD.saturating_sub(entering.held.len());
        entering.held.extend(batch.deliveries().iter().take(room).cloned());
        let dropped = batch.deliveries().len().saturating_sub(room);
        if dropped > 0 {
            entering.overflowed = true;
            metrics::counter!(names::DROPPED, "reason" => "held_too_many").increment(dropped as u64);
        }
        return Sent::default();
    }
    match other_room(peer, key, |other| batches.contains_key(other)) {
        // Both rooms have something: the classroom's turn takes both, in order.
        Some(_) if peer.lesson == Some(key) => Sent::default(),
        Some(other) => {
            let mut both = Batch::default();
            let mut deliveries: Vec<_> = [key, other].iter().flat_map(|key| batches[key].deliveries()).collect();
            deliveries.sort_by_key(|delivery| delivery.offset());
            deliveries.into_iter().for_each(|delivery| both.add(delivery));
            both.send(socket)
        }
        None => batches.get_mut(&key).map(|batch| batch.send(socket)).unwrap_or_default(),
    }
}

/// The same for one who resumes. While it stands at another room's door, what is settled here waits with it, so that the
/// two rooms' events go out in order.
pub(super) fn send_settled_to(
    socket: &mut Socket<'_, Peer>,
    key: RoomKey,
    batches: &HashMap<RoomKey, Vec<Arc<Delivery>>>,
) -> Sent {
    let peer = &mut *socket.peer;
    let other = other_room(peer, key, |other| batches.contains_key(other));
    if other.is_some() && peer.lesson == Some(key) {
        return Sent::default();
    }
    let mut deliveries: Vec<_> = [Some(key), other].iter().flatten().flat_map(|key| &batches[key]).collect();
    deliveries.sort_by_key(|delivery| delivery.offset());
    let door = peer.extra.as_mut().and_then(|extra| extra.entering.first_mut());
    if let Some(entering) = door.filter(|entering| entering.held.len() + deliveries.len() <= MAX_HELD) {
        entering.held.extend(deliveries.into_iter().cloned());
        return Sent::default();
    }
    send_in_order(socket, deliveries)
}

fn other_room(peer: &Peer, key: RoomKey, ready: impl Fn(&RoomKey) -> bool) -> Option<RoomKey> {
    let other = if peer.lesson == Some(key) { peer.classroom } else { peer.lesson };
    other.filter(ready)
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
