//! The request to a function (PROTOCOL 10).
use bytes::Bytes;
use rollcall_schema::{AgentId, ClassroomId, JsonObject, LessonId, Role, Seat, SessionId, Sid};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::handler::session::Session;

#[derive(Serialize)]
struct Call<'a> {
    event: &'a str,
    payload: &'a RawValue,
    session: Caller<'a>,
}

/// The connection that calls. A field that a guest does not have is null.
#[derive(Serialize)]
struct Caller<'a> {
    session_id: Option<SessionId>,
    agent_id: Option<&'a AgentId>,
    classroom_id: ClassroomId,
    role: Option<Role>,
    sid: Sid,
    lesson_id: Option<&'a LessonId>,
    seat: Option<Seat>,
    info: Option<&'a JsonObject>,
}

/// Returns the body of the POST request.
pub(super) fn body(event: &str, session: &Session, payload: &RawValue) -> Bytes {
    let session = Caller {
        session_id: session.id(),
        agent_id: session.agent_id(),
        classroom_id: session.classroom(),
        role: session.role(),
        sid: session.sid(),
        lesson_id: session.lesson(),
        seat: session.seat(),
        info: session.info(),
    };
    serde_json::to_vec(&Call { event, payload, session }).expect("texts and numbers are JSON").into()
}
