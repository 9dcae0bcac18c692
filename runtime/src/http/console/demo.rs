//! `POST /api/console/demo` returns tokens of the demo's users, with which the page connects as a client.
use hyper::StatusCode;
use serde::Serialize;

use crate::{
    demo,
    http::{
        admin::Admin,
        call::Call,
        reply::{HttpError, Reply, json},
    },
};
use rollcall_schema::Role;

#[derive(Serialize)]
struct Tokens {
    /// The address that clients connect to.
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

/// Signs the tokens if the gateway created its secret itself.
pub(super) async fn tokens(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let Some(demo) = &admin.demo else {
        let detail = "there is no demo, because a key is configured";
        return Err(HttpError::new(StatusCode::NOT_FOUND, detail));
    };
    call.audit.of("tokens of the demo");
    let user = |(name, role): &(&'static str, Role)| User { name, role: role.as_str(), token: demo.token(name, *role) };
    let users = demo::USERS.iter().map(user).collect();
    let tokens = Tokens {
        url: format!("{}/ws", demo.origin),
        classroom_id: demo::CLASSROOM.to_string(),
        lesson_id: demo::LESSON,
        users,
    };
    Ok(json(StatusCode::OK, &tokens))
}
