//! The order of events of a connection's two rooms. If both the classroom and the lesson have events, they are sent
//! with one write in the stream's order.
use std::{collections::HashMap, sync::Arc};

use super::{
    batch::{Batch, Sent, send_in_order},
    peer::Peer,
};
use crate::rooms::{Delivery, RoomKey};
use rollcall_websocket::Socket;

/// Sends a room's batch to a member that does not resume, together with the batch of the member's other room if there
/// is one. While the member joins the room, the batch is buffered.
pub(super) fn send_rooms(socket: &mut Socket<'_, Peer>, key: RoomKey, batches: &mut HashMap<RoomKey, Batch>) -> Sent {
    let peer = &mut *socket.peer;
    let buffer = peer.cold.as_mut().and_then(|cold| cold.join_buffers.iter_mut().find(|buffer| buffer.room == key));
    if let Some(buffer) = buffer {
        if let Some(batch) = batches.get(&key) {
            buffer.extend(batch.deliveries().iter());
        }
        return Sent::default();
    }
    match other_room(peer, key, |other| batches.contains_key(other)) {
        // Both rooms have events, and the call for the classroom sends both.
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

/// Sends the events of both rooms that the watermark has passed to a member that resumes. While the member joins
/// another room or reads the list of agents, the events wait in a buffer, so that the events of both rooms are sent in
/// order.
pub(super) fn send_rooms_in_order(
    socket: &mut Socket<'_, Peer>,
    key: RoomKey,
    due: &HashMap<RoomKey, Vec<Arc<Delivery>>>,
) -> Sent {
    let peer = &mut *socket.peer;
    let other = other_room(peer, key, |other| due.contains_key(other));
    if other.is_some() && peer.lesson == Some(key) {
        return Sent::default();
    }
    let mut deliveries: Vec<_> = [Some(key), other].iter().flatten().flat_map(|key| &due[key]).collect();
    deliveries.sort_by_key(|delivery| delivery.offset());
    let buffer = peer.cold.as_mut().and_then(|cold| cold.join_buffers.first_mut());
    if let Some(buffer) = buffer.filter(|buffer| buffer.is_member || buffer.fits(deliveries.len())) {
        buffer.extend(deliveries.into_iter());
        return Sent::default();
    }
    send_in_order(socket, deliveries)
}

fn other_room(peer: &Peer, key: RoomKey, ready: impl Fn(&RoomKey) -> bool) -> Option<RoomKey> {
    let other = if peer.lesson == Some(key) { peer.classroom } else { peer.lesson };
    other.filter(ready)
}
