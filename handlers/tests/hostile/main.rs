//! Hostile clients against the real binary: what strangers send, how much of it, and what they may not do. The socket
//! layer's own tests have the attacks with frames.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod amplification;
mod authz;
mod functions;
mod hook;
mod input;
mod limits;
mod model;
mod node_limits;
mod origins;
mod proxies;
mod raw;
mod refresh;
mod silence;
mod socketio;
mod socketio_limits;
mod tls;
mod tls_proxies;
mod tokens;

use common::Backend;

/// Returns an embedded gateway with these settings.
fn with(settings: &[(&str, &str)]) -> Backend {
    Backend::embedded()
        .another(|options| settings.iter().fold(options.clone(), |options, (name, value)| options.env(name, value)))
}

/// Returns how many connections or messages the gateway dropped for this reason.
fn dropped(backend: &Backend, reason: &str) -> f64 {
    metric(backend, "rollcall_dropped_total", &format!("reason=\"{reason}\""))
}

fn metric(backend: &Backend, name: &str, label: &str) -> f64 {
    backend.gateway.metric(name, &[label]).unwrap()
}
