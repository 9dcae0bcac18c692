//! The questions that were answered with a yes, each remembered for a while.
use std::collections::HashMap;

use bytes::Bytes;
use tokio::time::Instant;

/// The maximum number of answers that the two halves keep together.
const CAPACITY: usize = 20_000;

/// Maps each question to the time until which its yes is remembered. There are two halves. When the recent half is
/// full, it replaces the older half, so no search for old entries is needed.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    recent: HashMap<Bytes, Instant>,
    older: HashMap<Bytes, Instant>,
}

impl Approvals {
    /// Returns whether the yes to this question is still remembered.
    pub(super) fn contains(&self, question: &Bytes) -> bool {
        let until = self.recent.get(question).or_else(|| self.older.get(question));
        until.is_some_and(|until| *until > Instant::now())
    }

    /// Remembers the yes to this question until the given time.
    pub(super) fn insert(&mut self, question: Bytes, until: Instant) {
        if self.recent.len() >= CAPACITY / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(question, until);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn however_many_are_asked_for_so_many_answers_are_kept() {
        let mut approvals = Approvals::default();
        let question = |number: usize| Bytes::from(number.to_string());
        let until = Instant::now() + Duration::from_secs(60);
        for number in 0..3 * CAPACITY {
            approvals.insert(question(number), until);
            let kept = approvals.recent.len() + approvals.older.len();
            assert!(kept <= CAPACITY && approvals.contains(&question(number)));
        }
        assert!(!approvals.contains(&question(0)));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!approvals.contains(&question(3 * CAPACITY - 1)), "too old");
    }
}
