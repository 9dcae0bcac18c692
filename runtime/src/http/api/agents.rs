//! `GET classrooms/{id}/agents` lists the agents in a classroom.
use hyper::StatusCode;
use rollcall_schema::roster::ListedAgent;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

/// Lists the agents whose session ids are above `sequence_id`, in the order of these ids.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let (query, limit) = call.url.roster_page()?;
    let agents = admin.store.agents(&[query], limit).await.map_err(|error| admin.refusal(&error))?;
    let agents: Vec<_> = agents.iter().flatten().map(ListedAgent::from).collect();
    Ok(json(StatusCode::OK, &agents))
}
