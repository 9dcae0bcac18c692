//! What strangers send, and what becomes of it: each row of the security table that is not about frames, against the
//! real binary.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod raw;
mod refresh;

use common::Backend;

/// An embedded gateway with these settings.
fn with(settings: &[(&str, &str)]) -> Backend {
    Backend::embedded()
        .another(|options| settings.iter().fold(options.clone(), |options, (name, value)| options.env(name, value)))
}

/// How many requests for an upgrade had this outcome.
fn upgrades(backend: &Backend, outcome: &str) -> f64 {
    backend.gateway.metric("rollcall_upgrades_total", &[&format!("outcome=\"{outcome}\"")]).unwrap()
}
