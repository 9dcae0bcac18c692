//! A worker's part of a replay: it sends each chunk, and at the end tells what else was missed.
use super::{
    Gateway,
    commands::{ReplayChunk, ReplayEnd},
    peer::Peer,
};
use crate::rooms::RoomKey;
use rollcall_websocket::Sockets;

impl Gateway {
    /// A part of what a connection missed.
    pub(super) fn on_replay_chunk(&self, sockets: &mut Sockets<Peer>, chunk: ReplayChunk) {
        let ReplayChunk { socket, events, queued } = chunk;
        let Some(mut socket) = sockets.get_mut(socket) else { return };
        for incoming in events {
            let key = self.fanout.key_in(socket.peer, &incoming.room);
            let Some(key) = key.filter(|key| socket.peer.needs(*key, incoming.offset)) else { continue };
            let Some(delivery) = self.shared.rooms.encode(key, incoming) else { continue };
            if delivery.is_for(socket.peer.mark) {
                socket.send_frames(&delivery.resumable(delivery.offset()));
            }
        }
        // The replay may have ended meanwhile.
        let _ = queued.send(socket.queued());
    }

    /// The end of what a connection missed: it is live, unless more came meanwhile.
    pub(super) fn on_replay_end(&self, sockets: &mut Sockets<Peer>, end: ReplayEnd) {
        let ReplayEnd { socket, through, rooms, missed: answer } = end;
        let Some(socket) = sockets.get_mut(socket) else { return };
        let sent: Vec<RoomKey> = rooms.iter().filter_map(|room| self.fanout.key_in(socket.peer, room)).collect();
        // A lesson whose join still runs is read when the join is done.
        let joined = socket.peer.classroom.into_iter().chain(socket.peer.lesson);
        let rooms = joined.filter_map(|key| self.fanout.room_id(key).cloned()).collect();
        // This node may be behind the one where the client was: events that the client got there must not be sent again.
        socket.peer.advance(through, &sent);
        let cold = socket.peer.cold_mut();
        let Some(replaying) = cold.replaying.as_mut() else { return };
        let missed = replaying.missed.take().is_some_and(|missed| missed > through);
        let lesson = replaying.lesson_begins.take();
        let more = (missed || lesson.is_some()).then(|| (lesson.map_or(through, |begins| begins.min(through)), rooms));
        if more.is_none() {
            cold.replaying = None;
        }
        let _ = answer.send(more);
    }
}
