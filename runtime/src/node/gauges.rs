//! Gauges of a node's settings. Alerts compare other metrics with them.
use std::time::{Duration, SystemTime};

use crate::{config::Config, limits::admission::AdmissionLimits};
use rollcall_base::names;

/// How long after its end a lease is taken over.
const TAKING: Duration = Duration::from_secs(1);

/// Sets the gauges that stay the same while the node runs.
pub(super) fn publish(config: &Config) {
    limits(&config.access.admission);
    metrics::gauge!(names::LEASE).set(config.presence.lease.as_secs_f64());
    metrics::gauge!(names::GHOST_BOUND).set(ghost_bound(config).as_secs_f64());
    metrics::gauge!(names::DRAIN_DEADLINE).set(0.0);
}

/// Sets the gauges of the limits, which may change while the node runs.
pub(super) fn limits(admission: &AdmissionLimits) {
    metrics::gauge!(names::CONNECTIONS_LIMIT).set(admission.connections as f64);
    if admission.memory != u64::MAX {
        metrics::gauge!(names::MEMORY_LIMIT).set(admission.memory as f64);
    }
}

/// Records that the node drains, and must have ended after this time.
pub(super) fn drains_within(time: Duration) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!(names::DRAIN_DEADLINE).set((now + time).as_secs_f64());
}

/// Returns how long an agent that is gone is still shown at most: the agent of a client that no longer answers, or of a
/// node that died.
fn ghost_bound(config: &Config) -> Duration {
    let sockets = &config.limits.sockets;
    let silence = sockets.ping_interval + sockets.pong_timeout.max(sockets.engine_pong_timeout);
    (silence + config.limits.grace.time).max(config.presence.lease + TAKING)
}
