//! The end of a connection: it leaves its rooms, and its session goes to the disconnect queue. If a handler has the
//! session, the session leaves when the handler is done.
use rollcall_schema::{KickCause, LeftReason, SessionError, Sid};

use super::{
    FindMissing, Gateway,
    peer::{Ending, Peer, PeerState},
};
use crate::handler::session::Session;
use rollcall_base::names;
use rollcall_websocket::{Cause, SocketId, Sockets};

impl Gateway {
    /// Removes a connection that has ended.
    pub(super) fn on_closed(&mut self, id: SocketId, peer: Peer, cause: Cause) {
        self.fanout.remove_member(id, &peer);
        self.enumeration.connection_ended(id);
        let reason = match cause {
            // The client knows that the node drains, so it may be on its way to another node, unless it said
            // DISCONNECT.
            Cause::ClosedByClient | Cause::Lost | Cause::PongTimedOut if peer.knows_of_drain && !peer.ends_finally => {
                LeftReason::Drained
            }
            Cause::ClosedByClient => LeftReason::Closed,
            Cause::Lost => LeftReason::Lost,
            Cause::PongTimedOut => LeftReason::TimedOut,
            Cause::Violation(_) => LeftReason::Kicked(Some(KickCause::Violation)),
            Cause::SlowConsumer => LeftReason::Kicked(Some(KickCause::Told(SessionError::SlowConsumer))),
            // The transport of this connection was closed because of another connection on it, or at the end of a
            // drain.
            Cause::ClosedByServer if peer.closed_by_us.is_none() && !self.draining => LeftReason::Lost,
            Cause::ClosedByServer => peer.closed_by_us.unwrap_or(LeftReason::Drained),
        };
        if matches!(cause, Cause::ClosedByClient | Cause::Lost | Cause::Violation(_)) {
            metrics::counter!(names::DISCONNECTS, "reason" => reason.as_str()).increment(1);
        }
        let kicked_from = peer.cold.and_then(|cold| cold.kicked_from);
        let ending = Ending { reason, is_final: peer.ends_finally, kicked_from };
        match peer.state {
            PeerState::Open(session) => self.leave(session, ending),
            PeerState::Connecting(_) | PeerState::Busy => {
                self.closed_while_busy.insert(id, ending);
            }
            PeerState::AwaitingConnect(_) | PeerState::Outside(_) | PeerState::Refused(_) => {}
        }
    }

    /// Handles the session of a connection that ended while its handler ran. The handler is done now.
    pub(super) fn leave_after_close(&mut self, id: SocketId, session: Box<Session>) {
        let lost = Ending { reason: LeftReason::Lost, is_final: false, kicked_from: None };
        let ending = self.closed_while_busy.remove(&id).unwrap_or(lost);
        self.leave(session, ending);
    }

    fn leave(&self, mut session: Box<Session>, Ending { reason, is_final, kicked_from }: Ending) {
        if is_final {
            session.membership.forget_resume_id();
        }
        let sid = session.sid();
        self.shared.disconnects.leave(session, reason);
        if let Some(lesson) = kicked_from {
            self.shared.disconnects.leave_lesson(sid, lesson);
        }
    }

    /// Returns the connections in `sids` that are no longer open.
    pub(super) fn ended(&self, sockets: &Sockets<Peer>, mut sids: Vec<Sid>) -> Vec<Sid> {
        sids.retain(|sid| self.shared.mailboxes.socket(*sid).is_none_or(|id| !sockets.has(id)));
        sids
    }

    /// Answers which connections are neither open nor waiting for their handler.
    pub(super) fn find_missing(&self, sockets: &Sockets<Peer>, FindMissing { sids, answer }: FindMissing) {
        let mut sids = self.ended(sockets, sids);
        sids.retain(|sid| {
            self.shared.mailboxes.socket(*sid).is_none_or(|id| !self.closed_while_busy.contains_key(&id))
        });
        // The caller may have stopped waiting.
        let _ = answer.send(sids);
    }
}
