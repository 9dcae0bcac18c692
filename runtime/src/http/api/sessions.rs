//! `GET sessions?user_id=`: where a user is now.
use hyper::StatusCode;
use rollcall_schema::{SessionId, UserId};
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
    /// The `after` of the next page; null at the end.
    next: Option<SessionId>,
}

/// Lists the user's sessions, ids above `after`.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    const RULE: &str = "a token's sub: 1 to 128 printable ASCII characters, percent-encoded";
    let user: Option<UserId> = call.parsed("user_id", RULE)?;
    let user = user.ok_or_else(|| HttpError::bad(format!("add ?user_id=, {RULE}")))?;
    let (after, limit) = (SessionId(call.number("after")?.unwrap_or(0)), call.limit()?);
    let sessions = admin.store.sessions_of(&user, after, limit).await.map_err(|error| admin.refusal(&error))?;
    let next = sessions.last().filter(|_| sessions.len() == limit).map(|last| last.session_id);
    Ok(json(StatusCode::OK, &Sessions { sessions, next }))
}
