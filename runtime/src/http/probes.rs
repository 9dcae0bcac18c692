//! Answers on the probes' address, which anybody in the cluster may reach.
//!
//! Invariant: no answer contains an address, a name of a user, or a text of a backend.
use hyper::{Method, Request, StatusCode};
use serde::Serialize;

use super::{
    health::{BackendStates, Health, Readiness},
    reply::{HttpError, Reply, json, text},
};

/// The answer to `/readyz` without the reasons, which `/readyz` on the admin address gives.
#[derive(Serialize)]
struct Summary {
    ready: bool,
    draining: bool,
    backends: Vec<State>,
}

#[derive(Serialize)]
struct State {
    name: &'static str,
    up: bool,
}

impl From<Readiness> for Summary {
    fn from(Readiness { ready, draining, backends }: Readiness) -> Self {
        let BackendStates { sql, keys, bus, identity } = backends;
        let state = |backend: super::health::Backend| State { name: backend.name, up: backend.up };
        Self { ready, draining, backends: [sql, keys, bus, identity].map(state).into() }
    }
}

/// Answers `GET /healthz` and `GET /readyz`.
pub(super) async fn answer<B>(health: &Health, request: &Request<B>) -> Reply {
    let path = request.uri().path();
    if !["/healthz", "/readyz"].contains(&path) {
        return HttpError::new(StatusCode::NOT_FOUND, "only /healthz and /readyz are answered here").reply();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return HttpError::method("GET").reply();
    }
    if path == "/healthz" {
        return text(StatusCode::OK, "ok\n");
    }
    let summary = Summary::from(health.readiness().await);
    json(if summary.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &summary)
}
