//! `GET /api/console/acts`: what was changed through this node lately.
use hyper::StatusCode;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

pub(super) async fn list(admin: &Admin, _: &Call<'_>) -> Result<Reply, HttpError> {
    Ok(json(StatusCode::OK, &admin.acts.list()))
}
