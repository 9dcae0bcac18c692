//! `join_lesson`: an agent or a guest takes part in a lesson (seed 003, both flows).
//!
//! Invariant: a join that fails leaves everything as it was: session, row, rooms and keys.
use std::sync::Arc;

use rollcall_base::failpoint;
use rollcall_keys::{KeyEntry, KeyField, LessonKeys};
use rollcall_runtime::{
    HandlerError, JoinedLesson, KeyCleanup, Presence, Resources, Rooms, Session, Sessions,
    auth::{Claims, Hook, Keyring},
    mixpanel::Mixpanel,
};
use rollcall_schema::{AckError, JoinLesson, LessonId, Role, RoomId, ack::LessonJoined};
use rollcall_store::{Join, Joined, RollbackJoin, StoreError};
use tracing::warn;

use crate::refresh::fresh;

/// What join_lesson needs.
pub struct Deps {
    keyring: Arc<Keyring>,
    hook: Arc<Hook>,
    sessions: Sessions,
    rooms: Rooms,
    kv: Arc<dyn LessonKeys>,
    leavings: KeyCleanup,
    mixpanel: Mixpanel,
}

impl Deps {
    /// Picks it out of the resources.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        Self {
            keyring: Arc::clone(&resources.keyring),
            hook: Arc::clone(&resources.hook),
            sessions: resources.sessions.clone(),
            rooms: resources.rooms.clone(),
            kv: Arc::clone(&resources.kv),
            leavings: resources.leavings.clone(),
            mixpanel: resources.mixpanel.clone(),
        }
    }
}

/// Joins a lesson. The numbers are the seed's, of the Teacher App's flow.
///
/// # Errors
/// What PROTOCOL 2 lists under ack; `try again later` while SQL or the keys are away.
pub async fn handle(deps: &Deps, session: &mut Session, request: JoinLesson) -> Result<LessonJoined, HandlerError> {
    let user = match &request.access_token {
        Some(token) => Some(fresh(&deps.keyring, session, token.as_str()).await?),
        None => session.claims(),
    };
    let lesson = chosen(session, user.as_ref(), request.lesson_id)?;
    // A guest is nobody to ask about: whoever lets guests in opens the lessons to all.
    if let Some(user) = &user
        && !deps.hook.admits_lesson(user, session.classroom, &lesson).await?
    {
        // Whether there is such a lesson is not for those who may not join it.
        return Err(AckError::LessonNotFound.into());
    }

    // 2, 3, 5, 8: check_lesson_exists, get seat, both saved with the session's row.
    let joined = deps
        .sessions
        .join(Join {
            sid: session.sid,
            session: session.presence.as_ref().map(|presence| presence.session),
            classroom: session.classroom,
            lesson: lesson.clone(),
            user: user.as_ref().map(|user| user.user.clone()),
        })
        .await?;
    let (seats, seat) = match joined {
        Joined::Lesson { seats, seat } => (seats, seat),
        Joined::NotFound => return Err(AckError::LessonNotFound.into()),
        // Another connection has the session: this one is about to hear so.
        Joined::NotOwner => return Err(StoreError::Fenced.into()),
    };

    // 4: enter_room.
    deps.rooms.enter(session.socket(), RoomId::Lesson(lesson.clone())).await;
    let offset = if session.resumes { Some(deps.rooms.end().await.offset) } else { None };

    failpoint::reach("lesson entered");
    // 9 to 12: the seat map if it is missing, the user's keys, TTLs.
    let named = user.as_ref().map(|user| (user.user.clone(), user.role));
    let entry = KeyEntry { lesson: lesson.clone(), seats, sid: session.sid, user: named.clone() };
    let before = session.place.as_ref().map(|place| &place.lesson).filter(|before| **before != lesson);
    // A join that fails, or is cut off by the handler's timeout, may still be carried out by a Redis that hung.
    let field = named.map(|(user, _)| Box::new(KeyField { lesson: lesson.clone(), user, sid: session.sid }));
    if let Some(earlier) = std::mem::replace(&mut session.tried, field).filter(|earlier| earlier.lesson != lesson) {
        deps.leavings.leave(*earlier);
    }
    let known = match deps.kv.join(&entry, before).await {
        Ok(known) => {
            failpoint::reach("keys written");
            session.tried = None;
            known
        }
        Err(error) => {
            undo(deps, session).await;
            return Err(error.into());
        }
    };
    if let Some(user) = user.as_ref().filter(|user| known && user.role == Role::Participant) {
        deps.mixpanel.reconnect(&user.user);
    }

    // 6, 7: the session.
    session.place = Some(JoinedLesson { lesson: lesson.clone(), seat, written: user.as_ref().map(|user| user.role) });
    if let Some(user) = user {
        session.hold(user);
    }
    Ok(LessonJoined { lesson, seat, seats, offset })
}

/// Which lesson, and whether this client may join it at all: the payload's, else the URL's, else the token's.
fn chosen(session: &Session, user: Option<&Claims>, asked: Option<LessonId>) -> Result<LessonId, AckError> {
    if user.is_some_and(|user| user.role == Role::Hub) {
        return Err(AckError::HubCannotJoin);
    }
    let lesson = asked.or_else(|| session.asked.clone()).or_else(|| user.and_then(Claims::lesson).cloned());
    let lesson = lesson.ok_or(AckError::LessonIdRequired)?;
    let admitted = user.is_none_or(|user| user.admits_lesson(&lesson) && user.admits_classroom(session.classroom));
    if admitted { Ok(lesson) } else { Err(AckError::LessonNotFound) }
}

/// Puts the session's row back. Where that fails too, the row is ahead of the client until its next join or its end.
async fn undo(deps: &Deps, session: &Session) {
    let Some(Presence { session: id, .. }) = session.presence else { return };
    let lesson = session.place.as_ref().map(|place| (place.lesson.clone(), place.seat));
    if let Err(error) = deps.sessions.restore(RollbackJoin { sid: session.sid, session: id, lesson }).await {
        warn!(%error, "a failed join is not undone in SQL");
    }
}
