//! `GET lessons/{id}/seats` returns a lesson's seat map.
use std::collections::BTreeMap;

use hyper::StatusCode;
use rollcall_schema::{ClassroomId, LessonId};
use serde::Serialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Serialize)]
struct Seats {
    lesson_id: LessonId,
    classroom_id: ClassroomId,
    /// The value of each seat number. The value is empty if the seat is free.
    seats: BTreeMap<u32, String>,
}

/// Reads the seat map from the store of lesson keys.
pub(super) async fn map(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let id = call.url.path.first().copied().unwrap_or_default();
    let lesson_id =
        LessonId::parse(id).map_err(|_| HttpError::bad("the lesson's id must be 1 to 64 of A-Z a-z 0-9 _ -"))?;
    let classroom_id = admin.store.lesson_classroom(&lesson_id).await.map_err(|error| admin.refusal(&error))?;
    let classroom_id =
        classroom_id.ok_or_else(|| HttpError::new(StatusCode::NOT_FOUND, format!("there is no lesson {lesson_id}")))?;
    let seats = admin.keys.seats(&lesson_id).await.map_err(|error| {
        tracing::warn!(%error, "a request to the API failed");
        HttpError::away(admin.keys.name())
    })?;
    Ok(json(StatusCode::OK, &Seats { lesson_id, classroom_id, seats }))
}
