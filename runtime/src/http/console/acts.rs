//! `GET /api/console/acts` lists the most recent changes that were made through this node.
use hyper::StatusCode;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

pub(super) async fn list(admin: &Admin, _: &Call<'_>) -> Result<Reply, HttpError> {
    Ok(json(StatusCode::OK, &admin.acts.list()))
}
