//! `POST lessons/leave` takes a session out of its lesson.
use hyper::StatusCode;
use rollcall_schema::{LessonId, SessionId};
use serde::{Deserialize, Serialize};

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leave {
    session_id: SessionId,
}

#[derive(Serialize)]
struct Left {
    /// `None` if the session is in no lesson, or there is no such session.
    lesson_id: Option<LessonId>,
}

/// Tells the session's node, and answers with the lesson.
pub(super) async fn leave(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let Leave { session_id } = call.json("{\"session_id\": NUMBER}")?;
    call.audit.of(format!("session {session_id}"));
    let lesson_id = admin.operator.kick_from_lesson(session_id).await.map_err(|error| admin.refusal(&error))?;
    Ok(json(StatusCode::OK, &Left { lesson_id }))
}
