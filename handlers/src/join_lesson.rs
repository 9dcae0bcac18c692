//! `join_lesson`: an agent or a guest takes part in a lesson (seed 003, both flows).
//!
//! Invariant: a join that fails leaves everything as it was: session, row, rooms and keys.
use std::sync::Arc;

use rollcall_runtime::{
    HandlerError, Presence, Resources, Rooms, Session,
    auth::{Claims, Hook, Keyring},
    mixpanel::Mixpanel,
};
use rollcall_schema::{AckError, JoinLesson, LessonId, Role, RoomId, ack::LessonJoined};

use crate::refresh::verify;

/// The dependencies of this handler.
pub struct Deps {
    keyring: Arc<Keyring>,
    hook: Arc<Hook>,
    presence: Presence,
    rooms: Rooms,
    mixpanel: Mixpanel,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        let Resources { keyring, hook, presence, rooms, mixpanel, .. } = resources.clone();
        Self { keyring, hook, presence, rooms, mixpanel }
    }
}

/// Joins a lesson. The numbers in the comments are the steps of the Teacher App's flow in seed 003.
///
/// # Errors
/// Returns the errors that PROTOCOL 2 lists for the ack of join_lesson, and `try again later` while SQL or Redis is
/// away.
pub async fn handle(deps: &Deps, session: &mut Session, request: JoinLesson) -> Result<LessonJoined, HandlerError> {
    let user = match &request.access_token {
        Some(token) => Some(verify(&deps.keyring, session, token.as_str()).await?),
        None => session.claims(),
    };
    let lesson = choose(session, user.as_ref(), request.lesson_id)?;
    // The authorization service is not asked about guests: a gateway that accepts guests opens its lessons to all of
    // them.
    if let Some(user) = &user
        && !deps.hook.admits_lesson(user, session.classroom(), &lesson).await?
    {
        // A user that may not join the lesson is not told whether it exists.
        return Err(AckError::LessonNotFound.into());
    }

    // Steps 2, 3, 5 and 8: check_lesson_exists, get the seat; both are saved with the session's row.
    let (socket, identity) = (session.socket(), user.as_ref().map(|user| (user.user.clone(), user.role)));
    let joining = deps.presence.join(&mut session.membership, lesson.clone(), identity).await?;
    // Step 4: enter_room.
    deps.rooms.enter(socket, RoomId::Lesson(lesson.clone())).await;
    let offset = if session.resumes { Some(deps.rooms.end().await.offset) } else { None };
    // Steps 6, 7 and 9 to 12: the session, the seat map if it is missing, the user's keys, and their TTLs.
    let joined = joining.write_keys().await?;

    if let Some(user) = user {
        if joined.reconnected {
            deps.mixpanel.track("reconnect", &user.user);
        }
        session.set_claims(user);
    }
    Ok(LessonJoined { lesson, seat: joined.seat, seats: joined.seats, offset })
}

/// Chooses the lesson: the payload's, or else the URL's, or else the token's. Returns an error if the client may not
/// join it.
fn choose(session: &Session, user: Option<&Claims>, named: Option<LessonId>) -> Result<LessonId, AckError> {
    if user.is_some_and(|user| user.role == Role::Hub) {
        return Err(AckError::HubCannotJoin);
    }
    let lesson = named.or_else(|| session.url_lesson.clone()).or_else(|| user.and_then(Claims::lesson).cloned());
    let lesson = lesson.ok_or(AckError::LessonIdRequired)?;
    let admitted = user.is_none_or(|user| user.admits_lesson(&lesson) && user.admits_classroom(session.classroom()));
    if admitted { Ok(lesson) } else { Err(AckError::LessonNotFound) }
}
