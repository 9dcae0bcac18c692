//! `GET classrooms/{id}/agents`: who is in a classroom.
use hyper::StatusCode;
use rollcall_schema::{AgentId, SessionId};
use serde::Serialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Serialize)]
struct Agent {
    id: SessionId,
    agent_id: AgentId,
}

/// Lists them by session, ids above `sequence_id`.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let (classroom, after, limit) = (call.classroom()?, call.number("sequence_id")?.unwrap_or(0), call.limit()?);
    let agents = admin.store.agents(classroom, SessionId(after), limit).await;
    let agents = agents.map_err(|error| admin.refusal(&error))?;
    let agents: Vec<_> = agents.into_iter().map(|(id, agent_id)| Agent { id, agent_id }).collect();
    Ok(json(StatusCode::OK, &agents))
}
