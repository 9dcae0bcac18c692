//! What a resuming connection missed, in order, before anything live (PROTOCOL 3).
//!
//! Invariant: while a replay runs, nothing live is sent and nothing live is kept: its offset is noted, and the stream is
//! asked again for what came meanwhile, until nothing has. So a replay costs a chunk of memory, however much was missed,
//! and can neither double an event nor leave one out.
use std::time::Duration;

use rollcall_schema::{Offset, RoomId, SessionError, Sid};
use tokio::sync::oneshot;

use super::{Mailboxes, WorkerCommand};
use crate::rooms::Rooms;
use rollcall_bus::{Incoming, Position, Replayed};
use rollcall_websocket::SocketId;

/// Events in a chunk; the next one is read when the client has taken this one.
const CHUNK: usize = 64;
/// Between two looks at whether it has. A client that takes nothing is the heartbeat's business.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A replay's state with its peer.
#[derive(Debug, Default)]
pub struct Replaying {
    /// The last live event that was not sent.
    pub missed: Option<Offset>,
    /// From where events of a lesson are to be sent that was joined meanwhile: no part of the replay has brought it.
    pub joined: Option<Offset>,
}

/// A piece of a replay on its way to the worker. An answer that never comes means that the connection is over.
pub struct Chunk {
    /// For whom.
    pub socket: SocketId,
    /// What.
    pub events: Vec<Incoming>,
    /// Told: bytes that the client has not taken yet.
    pub queued: oneshot::Sender<usize>,
}

/// The end of a replay, or of a part of it.
pub struct ReplayEnd {
    /// For whom.
    pub socket: SocketId,
    /// Events up to here were sent,
    pub upto: Offset,
    /// those of these rooms.
    pub rooms: Vec<RoomId>,
    /// Told: the rooms in which something else was missed, and after which offset; none where the connection is live now.
    pub missed: oneshot::Sender<Option<(Offset, Vec<RoomId>)>>,
}

/// Sends a replay, chunk by chunk, until its connection is live or over.
pub async fn replay(
    mailboxes: Mailboxes,
    rooms: Rooms,
    (socket, sid): (SocketId, Sid),
    (mut upto, mut ids): (Position, Vec<RoomId>),
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
                tokio::time::sleep(LOOK_AGAIN).await;
                left = send(&mailboxes, socket, Vec::new()).await;
            }
            if left.is_none() {
                return;
            }
        }
        let (missed, answer) = oneshot::channel();
        mailboxes
            .send(socket, WorkerCommand::Replayed(ReplayEnd { socket, upto: upto.offset, rooms: ids, missed }))
            .await;
        let Ok(Some((after, more))) = answer.await else { return };
        (upto.offset, ids) = (after, more);
        match rooms.replay(&ids, &upto).await {
            Some((more, end)) => (events, upto.offset) = (more, end),
            // The stream is away or has forgotten: the client comes back, and is told so if it must be.
            None => return mailboxes.close(sid, SessionError::InternalServerError).await,
        }
    }
}

async fn send(mailboxes: &Mailboxes, socket: SocketId, events: Vec<Incoming>) -> Option<usize> {
    let (queued, answer) = oneshot::channel();
    mailboxes.send(socket, WorkerCommand::Replay(Chunk { socket, events, queued })).await;
    answer.await.ok()
}
