//! `POST /api/console/demo`: tokens of the demo's users, with which the page connects as a client.
use hyper::StatusCode;
use serde::Serialize;

use crate::{
    demo::{self, Demo},
    http::{
        admin::Admin,
        call::Call,
        reply::{HttpError, Reply, json},
    },
};
use rollcall_schema::Role;

#[derive(Serialize)]
struct Tokens {
    /// Where clients connect.
    url: String,
    classroom_id: String,
    lesson_id: &'static str,
    users: Vec<User>,
}

#[derive(Serialize)]
struct User {
    name: &'static str,
    role: &'static str,
    token: String,
}

/// Signs them, where the gateway has made its secret itself.
pub(super) async fn tokens(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let Some(demo) = &admin.demo else {
        let detail = "there is no demo, because a key is configured";
        return Err(HttpError::new(StatusCode::NOT_FOUND, detail));
    };
    call.audit.of("tokens of the demo");
    let users = demo::USERS.iter().map(|(name, role)| user(demo, name, *role)).collect::<Result<_, _>>()?;
    let tokens = Tokens {
        url: format!("{}/ws", demo.origin),
        classroom_id: demo::CLASSROOM.to_string(),
        lesson_id: demo::LESSON,
        users,
    };
    Ok(json(StatusCode::OK, &tokens))
}

fn user(demo: &Demo, name: &'static str, role: Role) -> Result<User, HttpError> {
    let token = demo.token(name, role).map_err(|error| {
        tracing::warn!(%error, "a token of the demo is not signed");
        HttpError::away("the development secret")
    })?;
    Ok(User { name, role: role.as_str(), token })
}
