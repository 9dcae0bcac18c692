//! A change of a connection's lesson that is under way: a join, or the leaving of a lesson.
//!
//! Invariant: unless it is done, its client hears of an error or of nothing, whether it failed, got no answer, panicked or was
//! cut off by the handler's timeout; so row and keys are put back to what the membership says ([`crate::lesson_restore`]). The
//! connection's next change begins after that.
use std::time::Duration;

use rollcall_keys::{KeyEntry, KeyField};
use rollcall_schema::UserId;
use rollcall_store::{LessonChange, RestoreLesson, StoreError};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    Presence,
    lesson_restore::{LeftBehind, LessonRestore},
    membership::Membership,
};

/// How long a change waits for what an earlier one left behind: its client is told within two seconds to try again later.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[must_use]
pub(crate) struct LessonGuard<'a> {
    pub(crate) presence: &'a Presence,
    pub(crate) membership: &'a mut Membership,
    /// The number of the change.
    pub(crate) change: LessonChange,
    /// Whose fields in Redis it is about.
    user: Option<UserId>,
    /// Whether the row may say something else than the membership.
    row: bool,
    /// A field that Redis has, or may get until that moment, of a lesson that the membership does not name.
    field: Option<(KeyField, Instant)>,
    /// What undoes an earlier change, and was given up for this one.
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
            if timeout(PATIENCE, restore.done()).await.is_err() {
                return Err(StoreError::Unavailable("an earlier change of the lesson is not undone yet".to_owned()));
            }
            membership.restore = None;
        }
        Ok(LessonGuard::at_once(self, membership, user))
    }
}

impl<'a> LessonGuard<'a> {
    /// A change that does not wait for what an earlier one left behind: it must leave the lesson that this would put back.
    pub(crate) fn at_once(presence: &'a Presence, membership: &'a mut Membership, user: Option<UserId>) -> Self {
        let earlier = membership.restore.take().map(|restore| restore.give_up());
        let change = membership.change.next();
        // The number after it is for putting the row back.
        membership.change = change.next();
        let row = membership.agent.is_some();
        Self { presence, membership, change, user, row, field: None, earlier }
    }

    /// The row says what the membership says.
    pub(crate) fn row_is_right(&mut self) {
        self.row = false;
    }

    /// Redis has this field, or may get it until then.
    pub(crate) fn leaves(&mut self, field: KeyField, until: Instant) {
        self.field = Some((field, until));
    }

    /// The change writes its field to Redis, if it has one that may have to go: Redis may get it until then.
    pub(crate) fn may_write_until(&mut self, until: Instant) {
        if let Some((_, last)) = &mut self.field {
            *last = until;
        }
    }

    /// Nothing is left to put back.
    pub(crate) fn done(&mut self) {
        (self.row, self.field) = (false, None);
    }

    /// Puts the row back now, so that it is right when the client hears that its request failed. Where this fails too, it is
    /// tried again once the guard is dropped.
    pub(crate) async fn restore_row(&mut self) {
        if let Some(restore) = self.earlier_row().filter(|_| self.row) {
            self.row = self.presence.sessions.restore_lesson(restore).await.is_err();
        }
    }

    fn earlier_row(&self) -> Option<RestoreLesson> {
        let Membership { sid, agent, lesson, change, .. } = &*self.membership;
        let lesson = lesson.as_ref().map(|joined| (joined.lesson.clone(), joined.seat));
        Some(RestoreLesson { sid: *sid, session: agent.as_ref()?.id, change: *change, lesson })
    }

    /// What Redis holds of the lesson that the membership names. The seat map stays as it is.
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
