//! The log line of a call that changes something: who did what to whom, from where.
//!
//! Invariant: there is one line for each call that may have changed something, also where it failed or was cut off. It is not
//! left out however many there are.
use std::sync::{
    OnceLock,
    atomic::{AtomicU16, Ordering},
};

use hyper::StatusCode;
use rollcall_base::log_limit::AUDIT;
use tracing::info;

use super::access::Origin;

/// A line that is written when the call is over.
pub(super) struct AuditLine {
    origin: Origin,
    what: &'static str,
    whom: OnceLock<String>,
    status: AtomicU16,
}

impl AuditLine {
    /// Nothing is written until [`AuditLine::of`] is called.
    pub(super) fn new(origin: Origin, what: &'static str) -> Self {
        Self { origin, what, whom: OnceLock::new(), status: AtomicU16::new(0) }
    }

    /// The call is valid, and is about to change this.
    pub(super) fn of(&self, whom: impl Into<String>) {
        // An endpoint says it once.
        let _ = self.whom.set(whom.into());
    }

    /// How the call was answered.
    pub(super) fn answered(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }
}

impl Drop for AuditLine {
    fn drop(&mut self) {
        let Some(whom) = self.whom.get() else { return };
        let (by, what) = (self.origin.caller.name(), self.what);
        let from = self.origin.address.map(|address| address.to_string()).unwrap_or_default();
        match *self.status.get_mut() {
            0 => info!(target: AUDIT, by, from, what, whom, "cut off"),
            status => info!(target: AUDIT, by, from, what, whom, status, "answered"),
        }
    }
}
