//! What was changed through this node lately, for the console. The log has the same, and for longer.
//!
//! Invariant: at most [`MOST`] are kept.
use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

/// How many acts are kept.
const MOST: usize = 200;

/// A call that changed something, or may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Act {
    /// When it was answered, as in RFC 3339, UTC.
    pub(super) at: String,
    /// How the caller was let in: the name of its token.
    pub(super) by: &'static str,
    /// The caller's address.
    pub(super) from: String,
    /// The path.
    pub(super) what: &'static str,
    /// The user, agent, classroom or lesson that was changed.
    pub(super) whom: String,
    /// The answer's status; 0 where there was none.
    pub(super) status: u16,
}

/// The latest acts, the oldest first.
#[derive(Debug, Default)]
pub struct Acts(Mutex<VecDeque<Act>>);

impl Acts {
    pub(super) fn add(&self, act: Act) {
        let mut acts = self.0.lock();
        if acts.len() == MOST {
            acts.pop_front();
        }
        acts.push_back(act);
    }

    pub(super) fn list(&self) -> Vec<Act> {
        self.0.lock().iter().cloned().collect()
    }
}
