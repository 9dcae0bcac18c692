//! Ends a connection's part in a classroom.
//!
//! Invariant: agent.left and the move to history are one transaction, which only ends a session that still belongs to
//! this connection. The user's field in Redis is removed only if it still names this connection.
use rollcall_base::failpoint;
use rollcall_keys::KeyField;
use rollcall_schema::{LeftReason, UserId};
use rollcall_store::Closed;

use crate::{
    Presence,
    membership::{JoinedLesson, Membership},
};

impl Presence {
    /// Ends the session, and removes the user's field from Redis. `user` is the user of the token, also for a guest
    /// that joined a lesson with one. Tries until the database answers, because a leave must be recorded.
    pub async fn leave(&self, membership: Membership, user: Option<UserId>, reason: LeftReason) {
        let remembered = membership.remembered(reason);
        // The task that undoes a change of the lesson learns from the drop of `restore` that the connection has ended.
        let Membership { sid, lesson, restore, .. } = membership;
        drop(restore);
        failpoint::reach("leave begins");
        let closed = match remembered {
            Some(session) => Some(self.sessions.leave(session).await),
            None => None,
        };
        failpoint::reach("leave done");
        match closed {
            // The field to remove was written to SQL with the session's end.
            Some(Closed::Left) => self.cleanup.look(),
            Some(Closed::NotOwner) => self.cleanup.ended(sid),
            // A guest's joins have written the fields that they leave to SQL.
            None if user.is_some() => self.cleanup.ended(sid),
            None => {}
        }
        // A connection that has lost its session may have joined after the field's removal was noted elsewhere. A
        // connection whose join the database has lost may have a field of which SQL knows nothing.
        let unwritten = closed != Some(Closed::Left) || self.sessions.has_lost_commits();
        if let (Some(JoinedLesson { lesson, field: Some(_), .. }), Some(user)) = (lesson, user)
            && unwritten
        {
            self.cleanup.leave(KeyField { lesson, user, sid });
        }
    }
}
