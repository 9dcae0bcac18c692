//! Dead nodes' sessions whose end the database refuses: left aside for a while, so that they hold up nobody else's.
//!
//! Invariant: each is tried again, after a pause that doubles up to a minute, for an operator may have mended it meanwhile;
//! each refusal is counted, and said at most every ten seconds. Bounded: what does not fit is tried again at once.
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rollcall_schema::SessionId;

use rollcall_base::{log_limit::LogLimit, names};

/// Sessions that are left aside.
const MAX: usize = 10_000;
/// The first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

struct Aside {
    until: Instant,
    pause: Duration,
}

/// Those of a store.
pub(super) struct Quarantine {
    aside: Mutex<HashMap<i64, Aside>>,
    said: LogLimit,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { aside: Mutex::default(), said: LogLimit::new() }
    }
}

impl Quarantine {
    /// Those that are to be left aside now.
    pub(super) fn aside(&self) -> Vec<i64> {
        let now = Instant::now();
        // A map of instants is whole after any panic.
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was not refused again for so long has ended.
        aside.retain(|_, aside| aside.until + PAUSE.1 > now);
        aside.iter().filter(|(_, aside)| aside.until > now).map(|(session, _)| *session).collect()
    }

    /// The database refused to end this one.
    pub(super) fn add(&self, SessionId(session): SessionId, why: &str) {
        metrics::counter!(names::DROPPED, "reason" => "reap_refused").increment(1);
        if let Some(more) = self.said.pass() {
            tracing::error!(session, why, more, "the end of a dead node's session is refused; it is tried again later");
        }
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.len() < MAX || aside.contains_key(&session) {
            let pause = aside.get(&session).map_or(PAUSE.0, |before| (2 * before.pause).min(PAUSE.1));
            aside.insert(session, Aside { until: Instant::now() + pause, pause });
        }
    }
}
