//! The endpoints for probes and Prometheus.
use hyper::StatusCode;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json, text, with},
};

/// Answers `GET /healthz`: the process runs.
pub(super) async fn alive(_: &Admin, _: &Call<'_>) -> Result<Reply, HttpError> {
    Ok(text(StatusCode::OK, "ok\n"))
}

/// Answers `GET /readyz`.
pub(super) async fn ready(admin: &Admin, _: &Call<'_>) -> Result<Reply, HttpError> {
    let readiness = admin.health.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(json(status, &readiness))
}

/// Answers `GET /metrics`.
pub(super) async fn metrics(admin: &Admin, _: &Call<'_>) -> Result<Reply, HttpError> {
    admin.outbox.measure().await;
    Ok(with(StatusCode::OK, "text/plain; version=0.0.4", admin.metrics.render()))
}
