//! An operator takes a connection out of its lesson.
//!
//! Invariant: the connection leaves as it would by itself, between two of its requests: so row, keys and room agree, and a
//! join that is under way ends first.
use std::time::Duration;

use rollcall_presence::LeaveLessonError;
use rollcall_schema::LessonId;
use rollcall_store::StoreError;
use tokio::time::sleep;
use tracing::warn;

use super::{
    Gateway, WorkerCommand,
    peer::{Peer, PeerState},
};
use crate::handler::session::Session;
use rollcall_presence::Presence;
use rollcall_websocket::Socket;

/// How often it is tried while SQL is away, and the pause between two tries.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);

impl Gateway {
    /// Now, or once the running handler is done.
    pub(super) fn kick_from_lesson(&mut self, socket: &mut Socket<'_, Peer>, lesson: LessonId) {
        match &socket.peer.state {
            PeerState::Open(session) if session.lesson() == Some(&lesson) => {}
            PeerState::Open(_) | PeerState::AwaitingConnect(_) | PeerState::Outside(_) | PeerState::Refused(_) => {
                return;
            }
            PeerState::Connecting(_) | PeerState::Busy => {
                socket.peer.cold_mut().kicked_from = Some(lesson);
                return;
            }
        }
        let PeerState::Open(session) = std::mem::replace(&mut socket.peer.state, PeerState::Busy) else { return };
        let (id, mailboxes, presence) = (socket.id(), self.shared.mailboxes.clone(), self.shared.presence.clone());
        tokio::spawn(async move {
            let session = leave(&presence, session).await;
            mailboxes.send(id, WorkerCommand::Answered { socket: id, session, ack: None, begins: None }).await;
        });
    }

    /// What waited for the handler that is done now.
    pub(super) fn kick_late(&mut self, socket: &mut Socket<'_, Peer>) {
        let waiting = socket.peer.cold.as_mut().and_then(|cold| cold.kicked_from.take());
        if let Some(lesson) = waiting.filter(|_| socket.is_open()) {
            self.kick_from_lesson(socket, lesson);
        }
    }
}

async fn leave(presence: &Presence, mut session: Box<Session>) -> Box<Session> {
    for _ in 0..ATTEMPTS {
        let user = session.user().map(|(user, _)| user);
        match presence.leave_lesson(&mut session.membership, user).await {
            Err(LeaveLessonError::Store(StoreError::Unavailable(why))) => {
                warn!(why, "a session that an operator takes out of its lesson waits for the database");
                sleep(PAUSE).await;
            }
            Ok(()) | Err(_) => break,
        }
    }
    session
}
