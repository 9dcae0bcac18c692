//! The task that reads the events that a resuming connection missed, and sends them in order before any live event
//! (PROTOCOL 3).
//!
//! Invariant: while a replay runs, no live event is sent or buffered. Only the event's offset is recorded, and the
//! stream is read again until no event came meanwhile. So a replay needs the memory of one chunk, however many events
//! were missed, and it neither repeats an event nor leaves one out.
use std::time::Duration;

use rollcall_schema::{RoomId, SessionError, Sid};
use tokio::sync::oneshot;

use super::{
    Mailboxes, WorkerCommand,
    commands::{ReplayChunk, ReplayEnd},
};
use crate::rooms::Rooms;
use rollcall_bus::{Incoming, Position, Replayed};
use rollcall_websocket::SocketId;

/// How many events are in a chunk. The next chunk is read when the client has taken this one.
const CHUNK: usize = 64;
/// The time between two checks whether the client has taken the chunk. If a client takes nothing, the heartbeat closes
/// its connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Sends a replay chunk by chunk until its connection is live or has ended.
pub(super) async fn replay(
    mailboxes: Mailboxes,
    rooms: Rooms,
    (socket, sid): (SocketId, Sid),
    (mut through, mut ids): (Position, Vec<RoomId>),
    mut events: Replayed,
) {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        while events.recv_many(&mut chunk, CHUNK).await > 0 {
            let Ok(read) = chunk.drain(..).collect::<Result<Vec<_>, _>>() else {
                return mailboxes.close(sid, SessionError::InternalServerError).await;
            };
            let mut left = send(&mailboxes, socket, read).await;
            while let Some(1..) = left {
                tokio::time::sleep(CHECK_INTERVAL).await;
                left = send(&mailboxes, socket, Vec::new()).await;
            }
            if left.is_none() {
                return;
            }
        }
        let (next, answer) = oneshot::channel();
        let end = ReplayEnd { socket, through: through.offset, rooms: ids, next };
        mailboxes.send(socket, WorkerCommand::ReplayEnd(end)).await;
        let Ok(Some((after, more))) = answer.await else { return };
        (through.offset, ids) = (after, more);
        match rooms.replay(&ids, &through).await {
            Some((more, end)) => (events, through.offset) = (more, end),
            // The bus is away, or the events are gone. The client reconnects, and is then told if its events are gone.
            None => return mailboxes.close(sid, SessionError::InternalServerError).await,
        }
    }
}

/// Sends events, and returns how many bytes the client has not yet taken. Returns `None` if the connection has ended.
async fn send(mailboxes: &Mailboxes, socket: SocketId, events: Vec<Incoming>) -> Option<usize> {
    let (queued, answer) = oneshot::channel();
    mailboxes.send(socket, WorkerCommand::ReplayChunk(ReplayChunk { socket, events, queued })).await;
    answer.await.ok()
}
