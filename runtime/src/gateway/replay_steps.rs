//! The worker's part of a replay: it sends each chunk, and at the end answers which further events were missed.
use super::{
    Gateway,
    batch::resumable,
    commands::{ReplayChunk, ReplayEnd},
    peer::Peer,
};
use crate::rooms::RoomKey;
use rollcall_websocket::{Socket, Sockets};

impl Gateway {
    /// Sends a part of the events that a connection missed.
    pub(super) fn on_replay_chunk(&self, sockets: &mut Sockets<Peer>, chunk: ReplayChunk) {
        let ReplayChunk { socket, events, queued } = chunk;
        let Some(mut socket) = sockets.get_mut(socket) else { return };
        for incoming in events {
            let Some(replaying) = socket.peer.cold_mut().replaying.as_mut().filter(|part| !part.abandoned) else {
                break;
            };
            replaying.sent = incoming.offset;
            let key = self.fanout.key_in(socket.peer, &incoming.room);
            let Some(key) = key.filter(|key| socket.peer.needs(*key, incoming.offset)) else { continue };
            let Some(delivery) = self.shared.rooms.encode(key, incoming) else { continue };
            if delivery.is_for(socket.peer.mark) {
                let form = (socket.peer.dialect, socket.framing());
                let frame = resumable(&delivery, form, delivery.offset());
                if !frame.is_empty() {
                    socket.send_frames(&frame);
                }
            }
        }
        let id = socket.id();
        // The replay may have ended meanwhile.
        let _ = queued.send(sockets.queued(id));
    }

    /// Handles the end of a part of a replay.
    pub(super) fn on_replay_end(&self, sockets: &mut Sockets<Peer>, end: ReplayEnd) {
        let ReplayEnd { socket, through, rooms, next } = end;
        let Some(mut socket) = sockets.get_mut(socket) else { return };
        let read: Vec<RoomKey> = rooms.iter().filter_map(|room| self.fanout.key_in(socket.peer, room)).collect();
        let Some(replaying) = socket.peer.cold_mut().replaying.as_mut() else { return };
        replaying.waiting = Some(next);
        if !replaying.abandoned {
            replaying.sent = through;
            // This node may be behind the node where the client was before. Events that the client got there must not
            // be sent again.
            socket.peer.advance(through, &read);
        }
        self.continue_replay(&mut socket);
    }

    /// Answers a replay that waits, unless a join runs: either the connection is live now, or the replay reads the
    /// events that came meanwhile.
    pub(super) fn continue_replay(&self, socket: &mut Socket<'_, Peer>) {
        let rooms = self.fanout.rooms_of(socket.peer);
        let Some(cold) = socket.peer.cold.as_mut().filter(|cold| cold.join_buffers.is_empty()) else { return };
        let Some(replaying) = cold.replaying.as_mut() else { return };
        let Some(next) = replaying.waiting.take() else { return };
        let missed = replaying.missed.take().is_some_and(|missed| missed > replaying.sent);
        let more = (missed || replaying.abandoned).then_some((replaying.sent, rooms));
        replaying.abandoned = false;
        if more.is_none() {
            cold.replaying = None;
        }
        // The replay may have ended meanwhile.
        let _ = next.send(more);
    }
}
