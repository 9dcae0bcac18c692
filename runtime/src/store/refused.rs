//! Sessions whose end the database refuses: left aside for a while, so that they hold up nobody else's.
//!
//! Invariant: one is tried again, for an operator may have mended it meanwhile; each refusal is logged and counted.
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rollcall_schema::SessionId;

use crate::names;

/// How long one is left aside.
const ASIDE: Duration = Duration::from_secs(30);

/// Those of a store.
#[derive(Default)]
pub(super) struct Refused(Mutex<HashMap<i64, Instant>>);

impl Refused {
    /// Those that are to be left aside now.
    pub(super) fn aside(&self) -> Vec<i64> {
        // A map of instants is whole after any panic.
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, since| since.elapsed() < ASIDE);
        refused.keys().copied().collect()
    }

    /// The database refused to end this one.
    pub(super) fn add(&self, SessionId(session): SessionId, why: &str) {
        tracing::error!(session, why, "the end of a dead node's session is refused; it is tried again later");
        metrics::counter!(names::DROPPED, "reason" => "reap_refused").increment(1);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(session, Instant::now());
    }
}
