//! Guards a change of a connection's lesson while it is under way: a join, or leaving a lesson.
//!
//! Invariant: a change that is not done (because it failed, got no answer, panicked, or was cut off by the handler's
//! timeout) is reported to the client as an error or not at all. So row and keys are put back to what the membership
//! says ([`crate::lesson_restore`]), and the connection's next change begins after that.
use std::time::Duration;

use rollcall_keys::{KeyEntry, KeyField};
use rollcall_schema::UserId;
use rollcall_store::{LessonChange, LessonOfSession, RestoreLesson, StoreError};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    Presence,
    lesson_restore::{LeftBehind, LessonRestore},
    membership::{JoinedLesson, Membership},
};

/// How long a change waits until an earlier one is undone. A client learns within two seconds that it must try again
/// later.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(1);

/// A change that is put back if the guard is dropped before it is done.
#[must_use]
pub(crate) struct LessonGuard<'a> {
    pub(crate) presence: &'a Presence,
    pub(crate) membership: &'a mut Membership,
    /// The number of the change.
    pub(crate) change: LessonChange,
    /// The user whose fields in Redis the change concerns.
    user: Option<UserId>,
    /// Whether the row may differ from the membership.
    row: bool,
    /// A field of a lesson that the membership does not name. Redis has it, or may get it until that time.
    field: Option<(KeyField, Instant)>,
    /// The task that undoes an earlier change. It was given up for this change.
    earlier: Option<JoinHandle<()>>,
}

impl Presence {
    /// Begins a change, once an earlier one is undone.
    pub(crate) async fn change_lesson<'a>(
        &'a self,
        membership: &'a mut Membership,
        user: Option<UserId>,
    ) -> Result<LessonGuard<'a>, StoreError> {
        if let Some(restore) = &mut membership.restore {
            if timeout(RESTORE_TIMEOUT, restore.done()).await.is_err() {
                return Err(StoreError::Unavailable("an earlier change of the lesson is not undone yet".to_owned()));
            }
            membership.restore = None;
        }
        Ok(LessonGuard::at_once(self, membership, user))
    }
}

impl<'a> LessonGuard<'a> {
    /// Begins a change that does not wait until an earlier one is undone. The change must leave the lesson that the
    /// undoing would put back.
    pub(crate) fn at_once(presence: &'a Presence, membership: &'a mut Membership, user: Option<UserId>) -> Self {
        let earlier = membership.restore.take().map(|restore| restore.give_up());
        let change = membership.change.next();
        // The number after this change's number is for putting the row back.
        membership.change = change.next();
        let row = membership.agent.is_some();
        Self { presence, membership, change, user, row, field: None, earlier }
    }

    /// Records that the row agrees with the membership.
    pub(crate) fn row_is_right(&mut self) {
        self.row = false;
    }

    /// Records that Redis has this field, or may get it until this time.
    pub(crate) fn leaves(&mut self, field: KeyField, until: Instant) {
        self.field = Some((field, until));
    }

    /// Records that the change writes its field to Redis, and that Redis may get it until this time. Without a field
    /// that may have to be removed, this does nothing.
    pub(crate) fn may_write_until(&mut self, until: Instant) {
        if let Some((_, last)) = &mut self.field {
            *last = until;
        }
    }

    /// Records that nothing must be put back.
    pub(crate) fn done(&mut self) {
        (self.row, self.field) = (false, None);
    }

    /// Puts the row back now, so that it is right when the client gets the error. If this fails, too, it is tried again
    /// after the guard is dropped.
    pub(crate) async fn restore_row(&mut self) {
        if let Some(restore) = self.earlier_row().filter(|_| self.row) {
            self.row = self.presence.sessions.restore_lesson(restore).await.is_err();
        }
    }

    fn earlier_row(&self) -> Option<RestoreLesson> {
        let Membership { sid, agent, lesson, change, .. } = &*self.membership;
        let lesson = lesson.as_ref().map(|JoinedLesson { lesson, seat, field }| LessonOfSession {
            lesson: lesson.clone(),
            seat: *seat,
            role: *field,
        });
        Some(RestoreLesson { sid: *sid, session: agent.as_ref()?.id, change: *change, lesson })
    }

    /// Returns the keys of the lesson that the membership names. The seat map stays unchanged.
    fn earlier_keys(&self) -> Option<KeyEntry> {
        let joined = self.membership.lesson.as_ref()?;
        let user = self.user.clone().zip(joined.field)?;
        Some(KeyEntry { lesson: joined.lesson.clone(), seats: 0, sid: self.membership.sid, user: Some(user) })
    }
}

impl Drop for LessonGuard<'_> {
    fn drop(&mut self) {
        if self.row || self.field.is_some() {
            let left = LeftBehind {
                row: self.earlier_row(),
                row_is_right: !self.row,
                keys: self.earlier_keys(),
                field: self.field.take(),
                earlier: self.earlier.take(),
            };
            self.membership.restore = Some(Box::new(LessonRestore::spawn(self.presence, left)));
        }
    }
}
