//! The presence service: what handlers call when an agent enters, joins a lesson or leaves.
//!
//! Invariant: SQL is written first, then the keys in Redis. A failed step is undone here and not in a handler.
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use rollcall_keys::LessonKeys;

use crate::{key_cleanup::KeyCleanup, rosters::Rosters, sessions::Sessions, undos::Undos};

/// The presence service: connections enter classrooms, join lessons and leave both. The value is cheap to clone.
#[derive(Clone)]
pub struct Presence {
    pub(crate) sessions: Sessions,
    pub(crate) keys: Arc<dyn LessonKeys>,
    pub(crate) cleanup: KeyCleanup,
    pub(crate) rosters: Rosters,
    max_user_sessions: Arc<AtomicU32>,
}

impl Presence {
    /// Creates a service of these parts. A user may have `max_user_sessions` at once.
    #[must_use]
    pub fn new(
        sessions: Sessions,
        keys: Arc<dyn LessonKeys>,
        cleanup: KeyCleanup,
        rosters: Rosters,
        max_user_sessions: u32,
    ) -> Self {
        let max_user_sessions = Arc::new(AtomicU32::new(max_user_sessions));
        Self { sessions, keys, cleanup, rosters, max_user_sessions }
    }

    /// Sets how many sessions a user may have at once from now on. Existing sessions stay.
    pub fn set_max_user_sessions(&self, max: u32) {
        self.max_user_sessions.store(max, Ordering::Relaxed);
    }

    /// Returns the tasks that undo calls that were cut off.
    #[must_use]
    pub fn undos(&self) -> &Undos {
        self.sessions.undos()
    }

    pub(crate) fn max_user_sessions(&self) -> u32 {
        self.max_user_sessions.load(Ordering::Relaxed)
    }
}
