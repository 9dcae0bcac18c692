//! `GET classrooms`: the classrooms that somebody is in.
use hyper::StatusCode;
use rollcall_schema::ClassroomId;
use rollcall_store::LiveClassroom;
use serde::Serialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Serialize)]
struct Classrooms {
    classrooms: Vec<LiveClassroom>,
    /// The `after` of the next page; null at the end.
    next: Option<ClassroomId>,
}

/// Lists them by id, ids above `after`.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let (after, limit) = (call.parsed("after", "a UUID")?, call.limit()?);
    let classrooms = admin.store.live_classrooms(after, limit).await.map_err(|error| admin.refusal(&error))?;
    let next = classrooms.last().filter(|_| classrooms.len() == limit).map(|last| last.classroom_id);
    Ok(json(StatusCode::OK, &Classrooms { classrooms, next }))
}
