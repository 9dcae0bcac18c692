//! A connection's part in a classroom ends.
//!
//! Invariant: agent.left and the move to history are one transaction, and only of a session that is still this
//! connection's; the user's field in Redis goes only if it still names this connection.
use rollcall_base::failpoint;
use rollcall_keys::KeyField;
use rollcall_schema::{LeftReason, UserId};
use rollcall_store::Closed;

use crate::{
    Presence,
    membership::{JoinedLesson, Membership},
};

impl Presence {
    /// Ends the session, and removes the user's field from Redis. `user` is the token's, also of a guest that brought one
    /// to a join. Tries until the database answers, because whoever left must be written down.
    pub async fn leave(&self, membership: Membership, user: Option<UserId>, reason: LeftReason) {
        let remembered = membership.remembered(reason);
        // This tells the task that undoes a change of the lesson that the connection has ended.
        let Membership { sid, lesson, restore, .. } = membership;
        drop(restore);
        failpoint::reach("leave begins");
        let closed = match remembered {
            Some(session) => Some(self.sessions.leave(session).await),
            None => None,
        };
        failpoint::reach("leave done");
        match closed {
            // The field to remove is written with the session's end.
            Some(Closed::Left) => self.cleanup.look(),
            Some(Closed::NotOwner) => self.cleanup.ended(sid),
            // Its joins have written down what they leave.
            None if user.is_some() => self.cleanup.ended(sid),
            None => {}
        }
        // A connection that has lost its session may have joined after whatever else was to remove its field. So may one
        // whose join the database has lost.
        let unwritten = closed != Some(Closed::Left) || self.sessions.has_lost_commits();
        if let (Some(JoinedLesson { lesson, field: Some(_), .. }), Some(user)) = (lesson, user)
            && unwritten
        {
            self.cleanup.leave(KeyField { lesson, user, sid });
        }
    }
}
