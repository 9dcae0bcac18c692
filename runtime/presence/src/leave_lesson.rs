//! A connection leaves its lesson, and stays in the classroom (PROTOCOL 9): first SQL, then the user's field in Redis.
//!
//! Invariant: what SQL says is what counts. A field that cannot be removed now is removed later, at the latest with the
//! session's end; if the node dies in between, by another node.
use rollcall_base::trace;
use rollcall_keys::{KeyField, StaleField};
use rollcall_schema::UserId;
use rollcall_store::{LeaveLesson, LessonLeft, StoreError};
use tracing::warn;

use crate::{
    Presence,
    membership::{JoinedLesson, Membership},
};

/// Why no lesson was left.
#[derive(Debug, thiserror::Error)]
pub enum LeaveLessonError {
    /// The connection has joined none.
    #[error("the connection is in no lesson")]
    NotInALesson,
    /// SQL is away, or the session is no longer this connection's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Presence {
    /// Takes lesson and seat out of the session's row, and the user's field out of Redis. `user` is the token's, also of a
    /// guest that brought one to a join.
    ///
    /// # Errors
    /// [`LeaveLessonError`].
    pub async fn leave_lesson(
        &self,
        membership: &mut Membership,
        user: Option<UserId>,
    ) -> Result<(), LeaveLessonError> {
        let lesson = membership.lesson().cloned().ok_or(LeaveLessonError::NotInALesson)?;
        let shared = match membership.session() {
            Some((session, _)) => {
                let leave = LeaveLesson { sid: membership.sid(), session, lesson };
                match trace::call("sql", "leave lesson", self.sessions.leave_lesson(leave)).await? {
                    LessonLeft::Left { shared } => shared,
                    // Another connection has the session: this one is about to be closed.
                    LessonLeft::NotOwner => return Err(StoreError::Fenced.into()),
                }
            }
            // It has no row that would say so: whether the user is there otherwise is found out with the removal.
            None => true,
        };
        let (joined, sid) = (membership.lesson.take(), membership.sid());
        let had_field = std::mem::take(&mut membership.has_field);
        if let Some((JoinedLesson { lesson, .. }, user)) = joined.zip(user).filter(|_| had_field) {
            self.remove_field(membership, KeyField { lesson, user, sid }, shared).await;
        }
        Ok(())
    }

    /// Cut off by the handler's timeout, the removal is left to the session's end.
    async fn remove_field(&self, membership: &mut Membership, field: KeyField, shared: bool) {
        let earlier = membership.unconfirmed.replace(Box::new(field.clone()));
        if let Some(earlier) = earlier.filter(|earlier| **earlier != field) {
            self.cleanup.leave(*earlier);
        }
        if shared {
            // It is to be the field of the user's other connection.
            self.cleanup.leave(field);
        } else {
            let stale = StaleField { field: field.clone(), successor: None };
            if let Err(error) = trace::call("keys", "remove keys", self.keys.remove(&[stale])).await {
                warn!(%error, "the field of a user that left a lesson waits");
                self.cleanup.leave(field);
            }
        }
        membership.unconfirmed = None;
    }
}
