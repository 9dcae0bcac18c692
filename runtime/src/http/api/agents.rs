//! `GET classrooms/{id}/agents`: who is in a classroom.
use hyper::StatusCode;
use rollcall_schema::{SessionId, roster::ListedAgent};

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};
use rollcall_store::RosterQuery;

/// Lists them by session, ids above `sequence_id`.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let (after, limit) = (SessionId(call.number("sequence_id")?.unwrap_or(0)), call.limit()?);
    let query = RosterQuery { classroom: call.classroom()?, lesson: None, after };
    let agents = admin.store.agents(&[query], limit).await.map_err(|error| admin.refusal(&error))?;
    let agents: Vec<_> = agents.iter().flatten().map(ListedAgent::from).collect();
    Ok(json(StatusCode::OK, &agents))
}
