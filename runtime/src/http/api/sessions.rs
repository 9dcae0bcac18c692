//! `GET sessions` lists live sessions by user, agent or classroom.
use hyper::StatusCode;
use rollcall_schema::{ClassroomId, SessionId};
use rollcall_store::LiveSession;
use serde::Serialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Serialize)]
struct Sessions {
    sessions: Vec<LiveSession>,
    /// The `after` of the next page. Null on the last page.
    next: Option<SessionId>,
}

/// Lists the sessions with ids above `after`.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let classroom: Option<ClassroomId> = call.url.parsed("classroom_id", "a UUID")?;
    let whose = call.url.whose()?;
    let (after, limit) = (SessionId(call.url.number("after")?.unwrap_or(0)), call.url.limit()?);
    let sessions = match (whose, classroom) {
        (Some(whose), None) => admin.store.sessions_of(&whose, after, limit).await,
        (None, Some(classroom)) => admin.store.sessions_in(classroom, after, limit).await,
        _ => return Err(HttpError::bad("add one of ?user_id=, ?agent_id= and ?classroom_id=")),
    };
    let sessions = sessions.map_err(|error| admin.refusal(&error))?;
    let next = sessions.last().filter(|_| sessions.len() == limit).map(|last| last.session_id);
    Ok(json(StatusCode::OK, &Sessions { sessions, next }))
}
