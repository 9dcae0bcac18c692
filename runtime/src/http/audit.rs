//! The log line of a call that changes something. It says who made the call, what was called, whom it changed, and from
//! which address.
//!
//! Invariant: there is one line for each call that may have changed something, also if the call failed or was cut off.
//! The log's limit of lines never leaves such a line out.
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use hyper::StatusCode;
use rollcall_base::log_limit::AUDIT;
use tracing::info;

use super::{
    access::{Caller, Origin},
    acts::{Act, Acts},
    times::ago,
};

/// A line that is written when the call is over.
pub(super) struct AuditLine {
    origin: Origin,
    what: &'static str,
    whom: OnceLock<String>,
    status: AtomicU16,
    acts: Arc<Acts>,
}

impl AuditLine {
    /// Creates a line. It is written only if [`AuditLine::of`] is called.
    pub(super) fn new(origin: Origin, what: &'static str, acts: Arc<Acts>) -> Self {
        Self { origin, what, whom: OnceLock::new(), status: AtomicU16::new(0), acts }
    }

    /// Records whom or what the call is about to change, after the call was found valid.
    pub(super) fn of(&self, whom: impl Into<String>) {
        // An endpoint calls this once.
        let _ = self.whom.set(whom.into());
    }

    /// Returns whether the caller may change something.
    pub(super) fn may_change(&self) -> bool {
        self.origin.caller != Caller::ReadToken
    }

    /// Records the status of the answer.
    pub(super) fn answered(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }
}

impl Drop for AuditLine {
    fn drop(&mut self) {
        let Some(whom) = self.whom.take() else { return };
        let (by, what, status) = (self.origin.caller.name(), self.what, *self.status.get_mut());
        let from = self.origin.address.map(|address| address.to_string()).unwrap_or_default();
        match status {
            0 => info!(target: AUDIT, by, from, what, whom, "cut off"),
            _ => info!(target: AUDIT, by, from, what, whom, status, "answered"),
        }
        self.acts.add(Act { at: ago(Duration::ZERO), by, from, what, whom, status });
    }
}
