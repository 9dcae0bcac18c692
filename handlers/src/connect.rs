//! `connect_request`: an agent enters a classroom (seed 000, the first diagram).
//!
//! Invariant: the room's subscription is live before the session's row is committed together with agent.entered. So of
//! two agents that enter at once, at least one sees the other.
use std::sync::Arc;

use rollcall_runtime::{
    ConnectContext, ConnectError, Connected, Enter, Membership, Presence, Resources, Rooms, Session,
    auth::{Action, Hook, Keyring},
    limits::{EventLimits, Payer},
};
use rollcall_schema::{AgentId, ClassroomId, ConnectRequest, LessonId, RoomId, Roster, SessionError};

use crate::resume;

/// The dependencies of this handler.
pub struct Deps {
    keyring: Arc<Keyring>,
    hook: Arc<Hook>,
    rates: Arc<EventLimits>,
    rooms: Rooms,
    presence: Presence,
    guests: bool,
    resume: resume::Deps,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        let Resources { keyring, hook, rates, rooms, presence, guests, .. } = resources.clone();
        Self { keyring, hook, rates, rooms, presence, guests, resume: resume::Deps::new(resources) }
    }
}

/// Opens an agent's session in a classroom, or lets a guest in without one.
///
/// # Errors
/// Returns `unauthenticated`, `access_denied` or `too_many_requests`, and `internal_server_error` while SQL is away.
pub async fn handle(deps: &Deps, context: ConnectContext, request: ConnectRequest) -> Result<Connected, ConnectError> {
    let ConnectRequest { token, classroom_id: classroom, agent_label, resume, roster, .. } = request;
    let user = match (token, &context.claims) {
        (None, None) => return guest(deps, &context, classroom),
        // The check that returned these claims (`admit.rs`) has limited the user's rate already.
        (None, Some(known)) => known.clone(),
        (Some(token), _) => {
            let user = deps.keyring.admit(token.as_str()).await?;
            limit_rate(deps, Payer::User(&user.user, &user.audience))?;
            user
        }
    };
    if !user.admits_classroom(classroom) || !deps.hook.admits(&user, classroom, Action::Connect).await? {
        return Err(SessionError::AccessDenied.into());
    }

    let agent = AgentId::new(&agent_label, &user.user, &user.audience);
    let enter = Enter::new(agent, classroom, user.role, context.sid).info(user.info().cloned());
    let enter = enter.resume_id(context.resume_id).trace(context.outgoing_trace());
    deps.rooms.enter(context.socket, RoomId::Classroom(classroom)).await;
    // The position is read before the row is written. So the session's own agent.left comes after that position,
    // whatever ends the session.
    let start = match resume {
        Some(_) => Some(deps.rooms.end_of_feed().await.ok_or(SessionError::InternalServerError)?),
        None => None,
    };
    let (membership, entered) = deps.presence.enter(enter).await?;

    let mut session = Session::agent(membership, user);
    session.url_lesson = url_lesson(&context);
    let resumption = match resume.zip(start) {
        // The future is boxed, so that a connect that does not resume does not carry its state.
        Some((resume, start)) => Some(Box::pin(resume::handle(&deps.resume, &mut session, resume, start)).await),
        None => None,
    };
    // The classroom's events are buffered until connect_success is sent, so none of them overtakes this roster. The
    // future is boxed, so that a connect that asks for no roster does not carry its state.
    let roster = match roster {
        Some(true) => Some(Box::pin(deps.presence.roster(&session.membership, Roster::default())).await?),
        Some(false) | None => None,
    };
    entered.commit();
    Ok(Connected { session, resumption, roster })
}

/// Lets a client without a token in. A guest has no row, causes no event, and gets none of the classroom's events.
fn guest(deps: &Deps, context: &ConnectContext, classroom: ClassroomId) -> Result<Connected, ConnectError> {
    if !deps.guests {
        return Err(deps.keyring.refuse_missing().into());
    }
    limit_rate(deps, Payer::Guest(context.client))?;
    let mut session = Session::guest(Membership::guest(context.sid, classroom));
    session.url_lesson = url_lesson(context);
    Ok(Connected { session, resumption: None, roster: None })
}

/// Limits how often a user or a guest's address connects: each connect may cost a row, and two pushes to everybody in
/// the classroom.
fn limit_rate(deps: &Deps, payer: Payer<'_>) -> Result<(), SessionError> {
    deps.rates.connect(payer).map_err(|_| SessionError::TooManyRequests)
}

/// Returns the lesson of `?lesson_id=` in the connection's URL. A value that is not a lesson's id counts as none.
fn url_lesson(context: &ConnectContext) -> Option<LessonId> {
    LessonId::parse(context.url_parameter.as_deref()?).ok()
}
