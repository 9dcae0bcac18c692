//! A connection joins a lesson: first SQL, then, once it is in the lesson's room, the keys in Redis.
//!
//! Invariant: a join that fails leaves session, row and keys as they were. Redis is written only while the row is known to be
//! this node's: whoever ends the sessions of a dead node removes their fields once.
use std::time::Duration;

use rollcall_base::{failpoint, since::Since, trace};
use rollcall_keys::{FailedJoin, KeyEntry, KeyField, KeysError};
use rollcall_schema::{ClassroomId, LessonId, Role, Seat, UserId};
use rollcall_store::{self as store, RollbackJoin, StoreError};
use tracing::warn;

use crate::{
    Presence,
    membership::{JoinedLesson, Membership},
};

/// A row that was asked for longer ago than this is asked for again before Redis is written: the process may have been
/// suspended meanwhile, and its lease be another's. A lease is taken no sooner than a second after its end.
const CONFIRMED: Duration = Duration::from_secs(1);

/// Why a lesson was not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is none of this id in the connection's classroom.
    #[error("the lesson is not found")]
    LessonNotFound,
    /// SQL is away, or the session is no longer this connection's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys are away.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// A join that SQL knows and Redis does not yet.
#[must_use]
pub struct Joining<'a> {
    presence: &'a Presence,
    membership: &'a mut Membership,
    asked: Since,
    seat: Option<Seat>,
    entry: KeyEntry,
}

/// A lesson that was joined.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    /// The user's seat, where there is one.
    pub seat: Option<Seat>,
    /// How many seats the lesson has.
    pub seats: u32,
    /// Whether this is a participant whose key from an earlier join was still there.
    pub reconnected: bool,
}

impl Presence {
    /// The classroom of a lesson.
    ///
    /// # Errors
    /// [`JoinError`]; `LessonNotFound` where there is none.
    pub async fn lesson_classroom(&self, lesson: &LessonId) -> Result<ClassroomId, JoinError> {
        self.sessions.lesson_classroom(lesson).await?.ok_or(JoinError::LessonNotFound)
    }

    /// Looks for the lesson and the user's seat in it, and saves both in the session's row. Guests have no user.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join<'a>(
        &'a self,
        membership: &'a mut Membership,
        lesson: LessonId,
        user: Option<(UserId, Role)>,
    ) -> Result<Joining<'a>, JoinError> {
        let asked = Since::now();
        let (seats, seat) = self.save(membership, &lesson, user.as_ref().map(|(user, _)| user)).await?;
        let entry = KeyEntry { lesson, seats, sid: membership.sid, user };
        Ok(Joining { presence: self, membership, asked, seat, entry })
    }

    /// How many seats the lesson has, and which one is the user's.
    async fn save(
        &self,
        membership: &Membership,
        lesson: &LessonId,
        user: Option<&UserId>,
    ) -> Result<(u32, Option<Seat>), JoinError> {
        let join = store::Join {
            sid: membership.sid,
            session: membership.agent.as_ref().map(|session| session.id),
            classroom: membership.classroom,
            lesson: lesson.clone(),
            user: user.cloned(),
        };
        match trace::call("sql", "join lesson", self.sessions.join(join)).await? {
            store::Joined::Lesson { seats, seat } => Ok((seats, seat)),
            store::Joined::NotFound => Err(JoinError::LessonNotFound),
            // Another connection has the session: this one is about to be closed.
            store::Joined::NotOwner => Err(StoreError::Fenced.into()),
        }
    }
}

impl Joining<'_> {
    /// Writes the seat map where it is missing, and the user's keys; then the connection has joined.
    ///
    /// # Errors
    /// [`JoinError`]; the session's row is put back.
    pub async fn write_keys(self) -> Result<Joined, JoinError> {
        failpoint::reach("lesson entered");
        let Self { presence, membership, asked, seat, entry } = self;
        if !asked.is_within(CONFIRMED) {
            let user = entry.user.as_ref().map(|(user, _)| user);
            if let Err(error) = presence.save(membership, &entry.lesson, user).await {
                roll_back(presence, membership).await;
                return Err(error);
            }
        }
        expect_field(presence, membership, &entry);
        let before = membership.lesson().filter(|_| membership.has_field);
        let wrote = presence.keys.join(&entry, before);
        let reconnected = match trace::call("keys", "write keys", wrote).await {
            Ok(existed) => existed,
            Err(FailedJoin { error, unsettled }) => {
                roll_back(presence, membership).await;
                unsettled.into_iter().for_each(|field| presence.cleanup.leave(field));
                return Err(error.into());
            }
        };
        failpoint::reach("keys written");
        membership.unconfirmed = None;
        let KeyEntry { lesson, seats, user, .. } = entry;
        (membership.lesson, membership.has_field) = (Some(JoinedLesson { lesson, seat }), user.is_some());
        Ok(Joined { seat, seats, reconnected })
    }
}

/// A join that fails, or is cut off by the handler's timeout, may still be carried out by a Redis that hung: its field is
/// remembered until an answer comes. One of an earlier join, of another lesson, is removed now.
fn expect_field(presence: &Presence, membership: &mut Membership, entry: &KeyEntry) {
    let field = entry
        .user
        .as_ref()
        .map(|(user, _)| Box::new(KeyField { lesson: entry.lesson.clone(), user: user.clone(), sid: membership.sid }));
    let earlier = std::mem::replace(&mut membership.unconfirmed, field);
    if let Some(earlier) = earlier.filter(|earlier| earlier.lesson != entry.lesson) {
        presence.cleanup.leave(*earlier);
    }
}

/// Puts the session's row back. Where that fails too, the row is ahead of the client until its next join or its end.
async fn roll_back(presence: &Presence, membership: &Membership) {
    let Some(session) = &membership.agent else { return };
    let lesson = membership.lesson.as_ref().map(|joined| (joined.lesson.clone(), joined.seat));
    let restore = RollbackJoin { sid: membership.sid, session: session.id, lesson };
    if let Err(error) = presence.sessions.restore(restore).await {
        warn!(%error, "a failed join is not undone in SQL");
    }
}
