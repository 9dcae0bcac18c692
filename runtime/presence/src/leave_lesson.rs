//! A connection leaves its lesson, and stays in the classroom (PROTOCOL 2). First the row in SQL is changed, then the
//! user's field in Redis is removed.
//!
//! Invariant: SQL decides. If it does not answer, the connection stays in the lesson, and the row is put back. A field
//! that cannot be removed now is removed as soon as Redis answers. If the node dies before, another node removes the
//! field.
use rollcall_base::trace;
use rollcall_keys::{KeyField, StaleField, Successors};
use rollcall_schema::UserId;
use rollcall_store::{LeaveLesson, LessonLeft, StoreError};
use tokio::time::Instant;
use tracing::warn;

use crate::{Presence, lesson_guard::LessonGuard, membership::Membership};

/// Why a connection did not leave its lesson.
#[derive(Debug, thiserror::Error)]
pub enum LeaveLessonError {
    /// The connection has joined no lesson.
    #[error("the connection is in no lesson")]
    NotInALesson,
    /// SQL is away, or the session is no longer this connection's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Presence {
    /// Removes lesson and seat from the session's row, and the user's field from Redis. `user` is the user of the
    /// token, also for a guest that joined a lesson with one.
    ///
    /// # Errors
    /// Returns a [`LeaveLessonError`] if the connection is still in the lesson.
    pub async fn leave_lesson(
        &self,
        membership: &mut Membership,
        user: Option<UserId>,
    ) -> Result<(), LeaveLessonError> {
        let lesson = membership.lesson().cloned().ok_or(LeaveLessonError::NotInALesson)?;
        let mut guard = self.change_lesson(membership, user.clone()).await?;
        let shared = match guard.membership.session() {
            Some((session, _)) => {
                let (sid, keep) = (guard.membership.sid(), self.keys.may_lose());
                let leave = LeaveLesson { sid, session, change: guard.change, lesson, keep };
                let left = match trace::call("sql", "leave lesson", self.sessions.leave_lesson(leave)).await {
                    Ok(LessonLeft::Left { shared }) => Ok(shared),
                    Ok(LessonLeft::NotOwner) => Err(self.disowned(guard.membership).await),
                    Err(error) => Err(error),
                };
                if left.as_ref().is_err_and(StoreError::wrote_nothing) {
                    guard.done();
                }
                left?
            }
            // A guest has no row, so the removal finds out whether another connection of the user is in the lesson.
            None => true,
        };
        guard.row_is_right();
        if let Some(field) = guard.membership.take_lesson(user) {
            self.remove_field(guard, field, shared).await;
        }
        Ok(())
    }

    /// Takes a session out of its lesson without a request of its client. Row and keys are changed later, however long
    /// SQL or Redis are away.
    pub fn take_out_of_lesson(&self, membership: &mut Membership, user: Option<UserId>) {
        let mut guard = LessonGuard::at_once(self, membership, user.clone());
        if let Some(field) = guard.membership.take_lesson(user) {
            guard.leaves(field, Instant::now());
        }
    }

    /// Removes the field. If it cannot be removed now, or must be set to the user's other connection, the guard does
    /// that later.
    async fn remove_field(&self, mut guard: LessonGuard<'_>, field: KeyField, shared: bool) {
        guard.leaves(field.clone(), Instant::now());
        if !shared {
            let stale = StaleField { field, successors: Successors::default() };
            match trace::call("keys", "remove keys", self.keys.remove(&[stale])).await {
                Ok(()) => guard.done(),
                Err(error) => warn!(%error, "the field of a user that left a lesson waits"),
            }
        }
    }
}
