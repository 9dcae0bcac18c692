//! `GET /api/console/me` says what the caller may do, so that the page offers nothing that would be refused.
use hyper::StatusCode;
use serde::Serialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Serialize)]
struct Me {
    version: &'static str,
    /// Whether the caller may change something.
    changes: bool,
    /// Whether the demo can be tried.
    demo: bool,
}

pub(super) async fn show(admin: &Admin, call: &Call<'_>) -> Result<Reply, HttpError> {
    let me = Me { version: env!("CARGO_PKG_VERSION"), changes: call.audit.may_change(), demo: admin.demo.is_some() };
    Ok(json(StatusCode::OK, &me))
}
