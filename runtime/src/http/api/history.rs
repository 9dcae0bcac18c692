//! `GET history` lists the sessions of a user or an agent that have ended, and why they ended.
use hyper::StatusCode;
use rollcall_schema::SessionId;
use rollcall_store::PastSession;
use serde::Serialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Serialize)]
struct History {
    sessions: Vec<PastSession>,
    /// The `before` of the next page. Null on the last page.
    next: Option<SessionId>,
}

/// Lists the sessions, the newest first. The ids are below `before`.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let whose = call.url.whose()?.ok_or_else(|| HttpError::bad("add one of ?user_id= and ?agent_id="))?;
    let (before, limit) = (SessionId(call.url.number("before")?.unwrap_or(i64::MAX)), call.url.limit()?);
    let sessions = admin.store.past_sessions_of(&whose, before, limit).await.map_err(|error| admin.refusal(&error))?;
    let next = sessions.last().filter(|_| sessions.len() == limit).map(|last| last.session_id);
    Ok(json(StatusCode::OK, &History { sessions, next }))
}
