//! `join_lesson` of a client without a classroom (PROTOCOL 11): it enters the lesson's classroom (seed 000), then joins
//! the lesson (seed 003). A client without a token enters no classroom, and joins as a guest.
//!
//! Invariant: everything that can be checked is checked before the classroom is entered.
use std::sync::Arc;

use rollcall_runtime::{
    ConnectContext, Connected, Enter, EnterGuard, HandlerError, Membership, Presence, Resources, Resumption, Rooms,
    Session, Visitor,
    auth::{Action, Claims, Hook, Keyring},
};
use rollcall_schema::{
    AckError, AgentId, ClassroomId, JoinLesson, LeftReason, LessonId, Role, RoomId, Roster, ack::LessonJoined,
};

use crate::join_lesson;

/// The dependencies of this handler.
pub struct Deps {
    keyring: Arc<Keyring>,
    hook: Arc<Hook>,
    rooms: Rooms,
    presence: Presence,
    join_lesson: join_lesson::Deps,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        let Resources { keyring, hook, rooms, presence, .. } = resources.clone();
        Self { keyring, hook, rooms, presence, join_lesson: join_lesson::Deps::new(resources) }
    }
}

/// Enters the lesson's classroom and joins the lesson.
///
/// # Errors
/// Returns the errors of join_lesson. If the user may not enter the classroom, the error is `lesson not found`.
pub async fn handle(
    deps: &Deps,
    context: ConnectContext,
    visitor: &Visitor,
    request: JoinLesson,
) -> Result<(Connected, LessonJoined), HandlerError> {
    let JoinLesson { lesson_id, access_token } = request;
    let user = match access_token {
        Some(token) => Some(verify(&deps.keyring, visitor, token.as_str()).await?),
        None => visitor.claims.clone(),
    };
    let lesson = choose(visitor, user.as_ref(), lesson_id)?;
    let classroom = deps.presence.lesson_classroom(&lesson).await?;
    let (mut session, entered, resumption) = match user {
        Some(user) => enter(deps, &context, visitor, user, (classroom, &lesson)).await?,
        None => (Session::guest(Membership::guest(context.sid, classroom)), None, None),
    };
    session.resumes = resumption.is_some();
    session.url_lesson = visitor.lesson.clone();
    let join = JoinLesson { lesson_id: Some(lesson), access_token: None };
    match join_lesson::handle(&deps.join_lesson, &mut session, join).await {
        Ok(joined) => {
            let roster = match session.id().filter(|_| visitor.roster) {
                Some(_) => Some(deps.presence.roster(&session.membership, Roster::default()).await?),
                None => None,
            };
            entered.into_iter().for_each(EnterGuard::commit);
            Ok((Connected { session, resumption, roster }, joined))
        }
        Err(error) => {
            let user = session.user().map(|(user, _)| user);
            deps.presence.leave(session.membership, user, LeftReason::Lost).await;
            Err(error)
        }
    }
}

/// Joins a lesson. If the lesson is of another classroom, the client enters that classroom in a new session, and the
/// caller ends the old session. A guest that brings a token enters the classroom, too. A failure changes nothing.
///
/// # Errors
/// Returns the errors of [`handle`].
pub async fn change(
    deps: &Deps,
    context: ConnectContext,
    session: &mut Session,
    request: JoinLesson,
) -> Result<(Option<Connected>, LessonJoined), HandlerError> {
    let visitor = Visitor::of(session);
    let enters = session.agent_id().is_none() && (request.access_token.is_some() || visitor.claims.is_some());
    let stays = match choose(&visitor, visitor.claims.as_ref(), request.lesson_id.clone()) {
        Ok(lesson) if !enters => deps.presence.lesson_classroom(&lesson).await? == session.classroom(),
        Ok(_) | Err(_) => !enters,
    };
    if stays {
        return Ok((None, join_lesson::handle(&deps.join_lesson, session, request).await?));
    }
    let (connected, joined) = handle(deps, context, &visitor, request).await?;
    Ok((Some(connected), joined))
}

/// Opens a session in the lesson's classroom. The guard ends it again unless it is committed.
async fn enter(
    deps: &Deps,
    context: &ConnectContext,
    visitor: &Visitor,
    user: Claims,
    (classroom, lesson): (ClassroomId, &LessonId),
) -> Result<(Session, Option<EnterGuard>, Option<Resumption>), HandlerError> {
    let admitted = user.admits_classroom(classroom)
        && user.admits_lesson(lesson)
        && deps.hook.admits(&user, classroom, Action::Connect).await?
        && deps.hook.admits_lesson(&user, classroom, lesson).await?;
    if !admitted {
        return Err(AckError::LessonNotFound.into());
    }
    let agent = AgentId::new(&visitor.label, &user.user, &user.audience);
    let enter = Enter::new(agent, classroom, user.role, context.sid).info(user.info().cloned());
    deps.rooms.enter(context.socket, RoomId::Classroom(classroom)).await;
    // The position is read before the row is written, as in `connect.rs`.
    let start = if visitor.resume_id.is_some() { Some(deps.rooms.end().await) } else { None };
    let (membership, guard) =
        deps.presence.enter(enter.resume_id(visitor.resume_id).trace(context.outgoing_trace())).await?;
    let resumption = start.map(|position| Resumption { position, recovered: false, replay: None });
    Ok((Session::agent(membership, user), Some(guard), resumption))
}

/// Chooses the lesson: the payload's, or else the handshake's, or else the token's.
fn choose(visitor: &Visitor, user: Option<&Claims>, named: Option<LessonId>) -> Result<LessonId, AckError> {
    if user.is_some_and(|user| user.role == Role::Hub) {
        return Err(AckError::HubCannotJoin);
    }
    let lesson = named.or_else(|| visitor.lesson.clone()).or_else(|| user.and_then(Claims::lesson).cloned());
    lesson.ok_or(AckError::LessonIdRequired)
}

/// Checks the token of a join: if the client's user is known, the token must be that user's.
async fn verify(keyring: &Keyring, visitor: &Visitor, token: &str) -> Result<Claims, HandlerError> {
    let user = keyring.admit(token).await?;
    let other = visitor.user().is_some_and(|(sub, audience)| sub != user.user || audience != user.audience);
    if other { Err(AckError::AccessTokenOfAnotherUser.into()) } else { Ok(user) }
}
