//! `POST disconnect` ends sessions.
use hyper::StatusCode;
use rollcall_schema::{AgentId, ClassroomId, SessionId, UserId};
use rollcall_store::{KickTarget, KickedSession};
use serde::{Deserialize, Serialize};

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

const FORM: &str = "{\"session_id\": NUMBER}, {\"agent_id\": TEXT} or {\"user_id\": TEXT}, \
    the latter two with \"classroom_id\": UUID or without";

/// The request. Unknown fields are refused, because a misspelt `classroom_id` would end the sessions of all classrooms.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    session_id: Option<SessionId>,
    agent_id: Option<AgentId>,
    user_id: Option<UserId>,
    classroom_id: Option<ClassroomId>,
}

#[derive(Serialize)]
struct Disconnected {
    ended: Vec<Ended>,
}

#[derive(Serialize)]
struct Ended {
    session_id: SessionId,
    agent_id: AgentId,
    classroom_id: ClassroomId,
}

/// Ends the sessions, and lists those that it ended. A second call with the same request lists none.
pub(super) async fn disconnect(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let target = target(call.json(FORM)?)?;
    call.audit.of(whom(&target));
    let kicked = admin.operator.kick(&target).await.map_err(|error| admin.refusal(&error))?;
    let ended = |KickedSession { session, agent, classroom, .. }| Ended {
        session_id: session,
        agent_id: agent,
        classroom_id: classroom,
    };
    Ok(json(StatusCode::OK, &Disconnected { ended: kicked.into_iter().map(ended).collect() }))
}

fn target(request: Disconnect) -> Result<KickTarget, HttpError> {
    match request {
        Disconnect { session_id: Some(session), agent_id: None, user_id: None, classroom_id: None } => {
            Ok(KickTarget::Session(session))
        }
        Disconnect { session_id: None, agent_id: Some(agent), user_id: None, classroom_id } => {
            Ok(KickTarget::Agent(agent, classroom_id))
        }
        Disconnect { session_id: None, agent_id: None, user_id: Some(user), classroom_id } => {
            Ok(KickTarget::User(user, classroom_id))
        }
        _ => Err(HttpError::bad(format!("name one: {FORM}"))),
    }
}

fn whom(target: &KickTarget) -> String {
    let of = |classroom: &Option<ClassroomId>| classroom.map_or_else(String::new, |id| format!(" in classroom {id}"));
    match target {
        KickTarget::Session(session) => format!("session {session}"),
        KickTarget::Agent(agent, classroom) => format!("agent {agent}{}", of(classroom)),
        KickTarget::User(user, classroom) => format!("user {user}{}", of(classroom)),
    }
}
