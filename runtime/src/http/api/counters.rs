//! `POST counters/agent` counts the agents in classrooms.
use std::collections::BTreeMap;

use hyper::StatusCode;
use rollcall_schema::ClassroomId;
use serde::Deserialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

/// The maximum size of a request in bytes: some 26,000 classrooms.
pub(super) const MAX_BODY: usize = 1 << 20;

#[derive(Deserialize)]
struct Counted {
    classroom_ids: Vec<ClassroomId>,
}

/// Returns the count of each classroom, including zeros.
pub(super) async fn count(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let Counted { mut classroom_ids } = call.json("{\"classroom_ids\": [UUID, ...]}")?;
    classroom_ids.sort_unstable();
    classroom_ids.dedup();
    let counts = admin.store.count_agents(&classroom_ids).await.map_err(|error| admin.refusal(&error))?;
    let counts: BTreeMap<_, _> = classroom_ids.iter().map(ToString::to_string).zip(counts).collect();
    Ok(json(StatusCode::OK, &counts))
}
