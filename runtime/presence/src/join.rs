//! A connection joins a lesson: first the row in SQL is written, then, once the connection is in the lesson's room, the
//! keys in Redis.
//!
//! Invariant: a join that fails, gets no answer or is cut off leaves session, row and keys as they were
//! ([`crate::lesson_guard`]). Redis is written only while the row certainly belongs to this node, because a node that
//! ends the sessions of a dead node removes their fields only once. The field in the lesson before is removed by the
//! join, or is set to the user's other connection there.
use std::time::Duration;

use rollcall_base::{failpoint, since::Since, trace};
use rollcall_keys::{CALL_LIMIT, EarlierField, FailedJoin, KeyEntry, KeyField, KeysError};
use rollcall_schema::{ClassroomId, LessonId, Role, Seat, UserId};
use rollcall_store::{self as store, LessonChange, StoreError};
use tokio::time::Instant;

use crate::{
    Presence,
    lesson_guard::LessonGuard,
    membership::{JoinedLesson, Membership},
};

/// If the row was read longer ago than this, it is read again before Redis is written, because the process may have
/// been suspended meanwhile, and its lease taken. A lease is taken no sooner than a second after its end.
const CONFIRMED: Duration = Duration::from_secs(1);

/// Why a lesson was not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The connection's classroom has no such lesson.
    #[error("the lesson is not found")]
    LessonNotFound,
    /// SQL is away, or the session is no longer this connection's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis is away.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// A join that is written in SQL and not yet in Redis. If it is dropped, it is undone.
#[must_use]
pub struct Joining<'a> {
    guard: LessonGuard<'a>,
    asked: Since,
    seat: Option<Seat>,
    /// Whether another connection of the user is in the lesson that this connection leaves.
    shared: bool,
    entry: KeyEntry,
}

/// A lesson that was joined.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    /// The user's seat, if it has one.
    pub seat: Option<Seat>,
    /// How many seats the lesson has.
    pub seats: u32,
    /// Whether the key of an earlier join of this participant still existed.
    pub reconnected: bool,
}

impl Presence {
    /// Returns the classroom of a lesson.
    ///
    /// # Errors
    /// Returns a [`JoinError`] if SQL does not answer, and `LessonNotFound` if there is no such lesson.
    pub async fn lesson_classroom(&self, lesson: &LessonId) -> Result<ClassroomId, JoinError> {
        self.sessions.lesson_classroom(lesson).await?.ok_or(JoinError::LessonNotFound)
    }

    /// Finds the lesson and the user's seat in it, and saves both in the session's row. `user` is `None` for a guest.
    ///
    /// # Errors
    /// Returns a [`JoinError`] if the lesson was not joined.
    pub async fn join<'a>(
        &'a self,
        membership: &'a mut Membership,
        lesson: LessonId,
        user: Option<(UserId, Role)>,
    ) -> Result<Joining<'a>, JoinError> {
        let mut guard = self.change_lesson(membership, user.as_ref().map(|(user, _)| user.clone())).await?;
        // From here on the row may say that the connection is in the lesson, and the reconciler writes what rows say.
        // If the same lesson is joined again, its field stays even if this join fails.
        let new = user.as_ref().filter(|_| guard.membership.lesson() != Some(&lesson));
        if let Some((user, _)) = new {
            let field = KeyField { lesson: lesson.clone(), user: user.clone(), sid: guard.membership.sid };
            guard.leaves(field, Instant::now());
        }
        let asked = Since::now();
        let saved = self.save(guard.membership, guard.change, &lesson, user.as_ref()).await;
        if saved.as_ref().is_err_and(wrote_nothing) {
            guard.done();
        }
        let (seats, seat, shared) = saved?;
        let entry = KeyEntry { lesson, seats, sid: guard.membership.sid, user };
        Ok(Joining { guard, asked, seat, shared, entry })
    }

    /// Saves the lesson in the row. Returns the number of its seats, the user's seat, and whether another connection of
    /// the user may be in the lesson that this connection leaves.
    async fn save(
        &self,
        membership: &Membership,
        change: LessonChange,
        lesson: &LessonId,
        user: Option<&(UserId, Role)>,
    ) -> Result<(u32, Option<Seat>, bool), JoinError> {
        let join = store::Join {
            sid: membership.sid,
            session: membership.agent.as_ref().map(|session| session.id),
            change,
            classroom: membership.classroom,
            lesson: lesson.clone(),
            user: user.cloned(),
            keep: self.keys.may_lose(),
        };
        match trace::call("sql", "join lesson", self.sessions.join(join)).await? {
            // A guest has no row. The removal of its field finds out whether another connection of the user is in that
            // lesson.
            store::Joined::Lesson { seats, seat, shared } => Ok((seats, seat, shared || membership.agent.is_none())),
            store::Joined::NotFound => Err(JoinError::LessonNotFound),
            store::Joined::NotOwner => Err(self.disowned(membership).await.into()),
        }
    }
}

/// Returns whether this error of SQL means that the row is unchanged.
fn wrote_nothing(error: &JoinError) -> bool {
    match error {
        JoinError::LessonNotFound => true,
        JoinError::Store(error) => error.wrote_nothing(),
        JoinError::Keys(_) => false,
    }
}

impl Joining<'_> {
    /// Writes the seat map if it is missing, and the user's keys. After that the connection has joined.
    ///
    /// # Errors
    /// Returns a [`JoinError`] if the lesson was not joined. Then the session's row is restored, and so are the keys as
    /// soon as Redis answers.
    pub async fn write_keys(self) -> Result<Joined, JoinError> {
        failpoint::reach("lesson entered");
        let Self { mut guard, asked, seat, shared, entry } = self;
        let presence = guard.presence;
        if !asked.is_within(CONFIRMED) {
            presence.save(guard.membership, guard.change, &entry.lesson, entry.user.as_ref()).await?;
        }
        guard.may_write_until(Instant::now() + CALL_LIMIT);
        let before = guard.membership.lesson.as_ref().and_then(|JoinedLesson { lesson, field, .. }| {
            Some(EarlierField { lesson: lesson.clone(), role: (*field)?, stays: shared || *lesson == entry.lesson })
        });
        let wrote = presence.keys.join(&entry, before.as_ref());
        let reconnected = match trace::call("keys", "write keys", wrote).await {
            Ok(existed) => existed,
            Err(FailedJoin { error, unsettled }) => {
                guard.restore_row().await;
                presence.cleanup.leave_unsettled(unsettled, entry.sid);
                return Err(error.into());
            }
        };
        failpoint::reach("keys written");
        guard.done();
        if let Some(field) = before.and_then(|before| entry.leaves(before)) {
            presence.cleanup.leave(field);
        }
        let KeyEntry { lesson, seats, user, .. } = entry;
        guard.membership.lesson = Some(JoinedLesson { lesson, seat, field: user.map(|(_, role)| role) });
        Ok(Joined { seat, seats, reconnected })
    }
}
