//! `connect_request`: an agent enters a classroom (seed 000, the first diagram).
//!
//! Invariant: the room's subscription is live before the session's row is committed, and with it agent.entered; so of
//! two who enter at once, at least one sees the other.
use std::sync::Arc;

use rollcall_base::failpoint;
use rollcall_bus::Position;
use rollcall_runtime::{
    ConnectContext, ConnectError, Connected, Presence, Resources, Resumption, Rooms, Session, Sessions,
    auth::{Hook, Keyring},
    limits::{EventLimits, Payer},
};
use rollcall_schema::{AgentId, ClassroomId, ConnectRequest, JoinLesson, Resume, RoomId, SessionError};
use rollcall_store::Open;
use tokio::time::Instant;

use crate::join_lesson;

/// What connect needs.
pub struct Deps {
    keyring: Arc<Keyring>,
    hook: Arc<Hook>,
    rooms: Rooms,
    sessions: Sessions,
    rates: Arc<EventLimits>,
    user_sessions: u32,
    guests: bool,
    /// A client that resumes joins its lesson on the way in.
    join_lesson: join_lesson::Deps,
}

impl Deps {
    /// Picks it out of the resources.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        Self {
            keyring: Arc::clone(&resources.keyring),
            hook: Arc::clone(&resources.hook),
            rooms: resources.rooms.clone(),
            sessions: resources.sessions.clone(),
            rates: Arc::clone(&resources.rates),
            user_sessions: resources.user_sessions,
            guests: resources.guests,
            join_lesson: join_lesson::Deps::of(resources),
        }
    }
}

/// Lets an agent in.
///
/// # Errors
/// `unauthenticated`, `access_denied`, `too_many_requests`; `internal_server_error` while SQL is away.
pub async fn handle(deps: &Deps, greeting: ConnectContext, request: ConnectRequest) -> Result<Connected, ConnectError> {
    let ConnectRequest { token, classroom_id: classroom, agent_label, resume } = request;
    let Some(token) = token else { return guest(deps, greeting, classroom) };
    let user = deps.keyring.admit(token.as_str()).await?;
    not_too_often(deps, Payer::User(&user.user, &user.audience))?;
    if !user.admits_classroom(classroom) || !deps.hook.admits(&user, classroom).await? {
        return Err(ConnectError::Session(SessionError::AccessDenied));
    }
    let agent = AgentId::new(&agent_label, &user.user, &user.audience);

    let since = Instant::now();
    deps.rooms.enter(greeting.socket, RoomId::Classroom(classroom)).await;
    failpoint::reach("classroom entered");
    let open = Open {
        classroom,
        agent: agent.clone(),
        user: user.user.clone(),
        sid: greeting.sid,
        role: user.role,
        user_sessions: deps.user_sessions,
    };
    let (opened, unclaimed) = deps.sessions.open(since, open).await?;

    let presence = Presence { session: opened.session, agent };
    let mut session = Session::agent(greeting, classroom, presence, user);
    let resumption = match resume {
        // Boxed: who does not resume need not carry its state.
        Some(resume) => Some(Box::pin(resumed(deps, &mut session, resume)).await),
        None => None,
    };
    failpoint::reach("connect done");
    unclaimed.claim();
    Ok(Connected { session, resumption })
}

/// Lets somebody in who has no token: no row, no event, nothing of the classroom's.
fn guest(deps: &Deps, greeting: ConnectContext, classroom: ClassroomId) -> Result<Connected, ConnectError> {
    if !deps.guests {
        return Err(deps.keyring.refuse_missing().into());
    }
    not_too_often(deps, Payer::Guest(greeting.client))?;
    Ok(Connected { session: Session::guest(greeting, classroom), resumption: None })
}

/// Each connect may cost a row, and two pushes to everybody in the classroom.
fn not_too_often(deps: &Deps, payer: Payer<'_>) -> Result<(), ConnectError> {
    deps.rates.connect(payer).map_err(|_| ConnectError::Session(SessionError::TooManyRequests))
}

/// Joins the lesson that the client was in, and looks for what it missed (PROTOCOL 3). The session is there already: what
/// cannot be recovered is said, and ends nothing. `recovered` speaks of the rooms that the client named: the classroom, and
/// the lesson where there is one.
async fn resumed(deps: &Deps, session: &mut Session, resume: Resume) -> Resumption {
    session.resumes = true;
    let asked = resume.position().map(|(epoch, offset)| Position { epoch: epoch.to_owned(), offset });
    let joined = match resume.lesson_id {
        Some(lesson) => {
            let request = JoinLesson { lesson_id: Some(lesson), access_token: None };
            join_lesson::handle(&deps.join_lesson, session, request).await.is_ok()
        }
        None => true,
    };
    if let Some(after) = asked.filter(|_| joined)
        && let Some(replay) = deps.rooms.replay(&session.rooms(), &after).await
    {
        return Resumption { position: after, recovered: true, replay: Some(replay) };
    }
    // Asked for after the rooms were entered: what is stored later comes.
    Resumption { position: deps.rooms.end().await, recovered: false, replay: None }
}
