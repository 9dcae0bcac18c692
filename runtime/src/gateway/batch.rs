//! Events that are sent to a member with one write.
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rollcall_schema::Offset;

use super::{dialect::Dialect, peer::Peer};
use crate::rooms::{AgentMark, Delivery, Namespace};
use rollcall_base::names;
use rollcall_websocket::{Framing, Socket};

/// How much was sent. The numbers are summed up here, because a look-up of a metric costs more than some sends.
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

/// Events that are sent with one write, and their encoded bytes for members that get all of them.
#[derive(Default)]
pub(super) struct Batch {
    deliveries: Vec<Arc<Delivery>>,
    /// The agents that some of the events are from or for.
    addressed: Vec<AgentMark>,
    /// Whether some event is for only one agent.
    private: bool,
    plain: Option<Bytes>,
    /// The encoded bytes for members that speak Socket.IO.
    socketio: Vec<((Namespace, Framing), Bytes)>,
}

impl Batch {
    pub(super) fn add(&mut self, delivery: &Arc<Delivery>) {
        self.addressed.extend(delivery.sender.into_iter().chain(delivery.receiver));
        self.private |= delivery.receiver.is_some();
        self.deliveries.push(Arc::clone(delivery));
    }

    /// Returns the events in the order in which they came.
    pub(super) fn deliveries(&self) -> &[Arc<Delivery>] {
        &self.deliveries
    }

    /// Sends the batch to a member that does not resume.
    pub(super) fn send(&mut self, socket: &mut Socket<'_, Peer>) -> Sent {
        let viewer = socket.peer.mark;
        let addressed = viewer.is_some_and(|mark| self.addressed.contains(&mark));
        if let Dialect::SocketIo(namespace) = socket.peer.dialect {
            return self.send_socketio(socket, namespace, self.private || addressed);
        }
        let (piece, count) = if self.private || addressed {
            let mine = |delivery: &&Arc<Delivery>| delivery.is_for(viewer);
            let count = self.deliveries.iter().filter(mine).count();
            (concat(self.deliveries.iter().filter(mine).map(|delivery| delivery.plain())), count)
        } else {
            let all = || concat(self.deliveries.iter().map(|delivery| delivery.plain()));
            (self.plain.get_or_insert_with(all).clone(), self.deliveries.len())
        };
        send_piece(socket, &piece, count)
    }

    /// Sends the batch to a member that speaks Socket.IO. If `some`, the member may not get all events.
    fn send_socketio(&mut self, socket: &mut Socket<'_, Peer>, namespace: Namespace, some: bool) -> Sent {
        let (viewer, member) = (socket.peer.mark, (namespace, socket.framing()));
        let frames = |deliveries: &[Arc<Delivery>]| {
            let mine = deliveries.iter().filter(|delivery| !some || delivery.is_for(viewer));
            let frames: Vec<_> = mine.map(|delivery| delivery.socketio(member)).collect();
            concat(frames.iter().filter(|frame| !frame.is_empty()))
        };
        if some {
            return send_piece(socket, &frames(&self.deliveries), self.deliveries.len());
        }
        let piece = match self.socketio.iter().find(|(known, _)| *known == member) {
            Some((_, piece)) => piece.clone(),
            None => {
                let piece = frames(&self.deliveries);
                self.socketio.push((member, piece.clone()));
                piece
            }
        };
        send_piece(socket, &piece, self.deliveries.len())
    }
}

/// Sends events that the watermark has passed to a member that resumes, in the stream's order.
pub(super) fn send_in_order<'a>(
    socket: &mut Socket<'_, Peer>,
    deliveries: impl IntoIterator<Item = &'a Arc<Delivery>>,
) -> Sent {
    let (viewer, lesson) = (socket.peer.mark, socket.peer.lesson);
    let (dialect, framing) = (socket.peer.dialect, socket.framing());
    let Some(cold) = &mut socket.peer.cold else { return Sent::default() };
    let Some(cursor) = &mut cold.cursor else { return Sent::default() };
    let mut frames = Vec::new();
    for delivery in deliveries {
        let offset = delivery.offset();
        if let Some(replaying) = &mut cold.replaying {
            replaying.missed = replaying.missed.max(Some(offset));
        } else if cursor.needs(offset, lesson == Some(delivery.room)) {
            if delivery.is_for(viewer) {
                frames.push(resumable(delivery, (dialect, framing), cursor.last));
            }
            cursor.last = offset.max(cursor.last);
        }
    }
    send_piece(socket, &concat(frames.iter()), frames.len())
}

/// Returns the frame of an event with its offset, for a member that was shown the offset `last` before.
/// [`Delivery::resumable`] says more.
pub(super) fn resumable(delivery: &Delivery, (dialect, framing): (Dialect, Framing), last: Offset) -> Bytes {
    match dialect {
        Dialect::Plain => delivery.resumable(last),
        Dialect::SocketIo(namespace) => delivery.socketio_resumable((namespace, framing), last),
    }
}

fn send_piece(socket: &mut Socket<'_, Peer>, piece: &Bytes, count: usize) -> Sent {
    if !piece.is_empty() {
        socket.send_frames(piece);
    }
    Sent { pushes: count as u64, bytes: piece.len() as u64 }
}

/// Joins frames. A single frame is not copied.
fn concat<'a>(mut frames: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let Some(first) = frames.next() else { return Bytes::new() };
    let Some(second) = frames.next() else { return first.clone() };
    let mut piece = BytesMut::from(&first[..]);
    piece.extend_from_slice(second);
    for frame in frames {
        piece.extend_from_slice(frame);
    }
    piece.freeze()
}
