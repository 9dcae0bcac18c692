//! The quarantine of sessions of dead nodes whose end the database refuses, so that they do not delay the others.
//!
//! Invariant: each session is tried again, after a pause that doubles up to a minute, because an operator may have
//! repaired it meanwhile. Each refusal is counted, and one is logged at most every ten seconds. The quarantine is
//! bounded: a session that does not fit is tried again at once.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rollcall_base::{log_limit::LogLimit, names};
use rollcall_schema::SessionId;

/// The maximum number of sessions in the quarantine.
const MAX: usize = 10_000;
/// The first pause between two attempts, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

struct Entry {
    until: Instant,
    pause: Duration,
}

/// The quarantined sessions of a store.
pub(super) struct SessionQuarantine {
    entries: Mutex<HashMap<i64, Entry>>,
    log: LogLimit,
}

impl Default for SessionQuarantine {
    fn default() -> Self {
        Self { entries: Mutex::default(), log: LogLimit::new() }
    }
}

impl SessionQuarantine {
    /// Returns the sessions that must not be tried now.
    pub(super) fn sessions(&self) -> Vec<i64> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        // A session that was not refused again for this long has ended.
        entries.retain(|_, entry| entry.until + PAUSE.1 > now);
        entries.iter().filter(|(_, entry)| entry.until > now).map(|(session, _)| *session).collect()
    }

    /// Records that the database refused to end this session.
    pub(super) fn add(&self, SessionId(session): SessionId, why: &str) {
        metrics::counter!(names::DROPPED, "reason" => "reap_refused").increment(1);
        if let Some(more) = self.log.pass() {
            tracing::error!(session, why, more, "the end of a dead node's session is refused; it is tried again later");
        }
        let mut entries = self.entries.lock();
        if entries.len() < MAX || entries.contains_key(&session) {
            let pause = entries.get(&session).map_or(PAUSE.0, |before| (2 * before.pause).min(PAUSE.1));
            entries.insert(session, Entry { until: Instant::now() + pause, pause });
        }
    }
}
