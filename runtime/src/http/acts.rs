//! The most recent changes that were made through this node, for the console. The log has the same changes, and keeps
//! them longer.
//!
//! Invariant: at most [`MAX`] are kept.
use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

/// How many changes are kept.
const MAX: usize = 200;

/// A call that changed something, or may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Act {
    /// When the call was answered, as in RFC 3339, UTC.
    pub(super) at: String,
    /// The name of the caller's token.
    pub(super) by: &'static str,
    /// The caller's address.
    pub(super) from: String,
    /// The path.
    pub(super) what: &'static str,
    /// The user, agent, classroom or lesson that was changed.
    pub(super) whom: String,
    /// The status of the answer. 0 if there was none.
    pub(super) status: u16,
}

/// The most recent changes, the oldest first.
#[derive(Debug, Default)]
pub struct Acts(Mutex<VecDeque<Act>>);

impl Acts {
    pub(super) fn add(&self, act: Act) {
        let mut acts = self.0.lock();
        if acts.len() == MAX {
            acts.pop_front();
        }
        acts.push_back(act);
    }

    pub(super) fn list(&self) -> Vec<Act> {
        self.0.lock().iter().cloned().collect()
    }
}
