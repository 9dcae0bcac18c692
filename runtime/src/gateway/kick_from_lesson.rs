//! Takes a session out of its lesson at an operator's request. The session may also be one whose connection has ended
//! and that waits for its client.
//!
//! Invariant: the session leaves between two of its requests, so that its row, its keys and its rooms agree. If a join
//! runs, the session leaves after the join.
use rollcall_schema::LessonId;

use super::{
    Gateway, GatewayContext,
    peer::{Peer, PeerState},
};
use crate::handler::session::Session;
use rollcall_websocket::{Socket, SocketId};

impl GatewayContext {
    /// Takes a session out of its lesson. Its row and its keys follow later if SQL or Redis is away now.
    pub(crate) fn take_out_of_lesson(&self, session: &mut Session) {
        let user = session.user().map(|(user, _)| user);
        self.presence.take_out_of_lesson(&mut session.membership, user);
    }
}

impl Gateway {
    /// Takes the connection's session out of this lesson, now or when the running handler is done.
    pub(super) fn kick_from_lesson(&mut self, socket: &mut Socket<'_, Peer>, lesson: LessonId) {
        match std::mem::replace(&mut socket.peer.state, PeerState::Busy) {
            PeerState::Open(mut session) if session.lesson() == Some(&lesson) => {
                self.shared.take_out_of_lesson(&mut session);
                self.session_returned(socket, session, None);
            }
            state => {
                if matches!(state, PeerState::Connecting(_) | PeerState::Busy) {
                    socket.peer.cold_mut().kicked_from = Some(lesson);
                }
                socket.peer.state = state;
            }
        }
    }

    /// Takes the session of a connection that has ended out of this lesson. A handler may still have the session, or
    /// the session waits for its client.
    pub(super) fn kick_from_lesson_after_close(&mut self, id: SocketId, lesson: LessonId) {
        match self.closed_while_busy.get_mut(&id) {
            Some(ending) => ending.kicked_from = Some(lesson),
            None => self.shared.disconnects.leave_lesson(self.shared.mailboxes.sid(id), lesson),
        }
    }

    /// Takes the session out of the lesson that an operator named while the handler ran. The handler is done now.
    pub(super) fn kick_late(&mut self, socket: &mut Socket<'_, Peer>) {
        let waiting = socket.peer.cold.as_mut().and_then(|cold| cold.kicked_from.take());
        if let Some(lesson) = waiting.filter(|_| socket.is_open()) {
            self.kick_from_lesson(socket, lesson);
        }
    }
}
