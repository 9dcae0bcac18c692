//! The state of a parked classroom.
use std::time::{Duration, Instant};

use rollcall_schema::Offset;

use super::{backoff::Backoff, pending::MAX_BATCH};
use rollcall_store::ParkedClassroom;

/// A parked classroom.
pub(super) struct Parked {
    /// The offset through which the classroom's events were delivered or given up.
    pub(super) after: Offset,
    /// Since when none of the classroom's events was accepted. `None` if the latest was accepted.
    pub(super) refused_since: Option<Instant>,
    /// How many events are sent at once.
    pub(super) max: usize,
    pub(super) next_attempt: Instant,
    pub(super) backoff: Backoff,
}

impl Parked {
    pub(super) fn new(after: Offset, max_pause: Duration) -> Self {
        let (now, backoff) = (Instant::now(), Backoff::new(max_pause));
        Self { after, refused_since: Some(now), max: MAX_BATCH, next_attempt: now, backoff }
    }

    /// Creates the state of a classroom that another node parked.
    pub(super) fn restored(parked: &ParkedClassroom, max_pause: Duration) -> Self {
        let since = Instant::now().checked_sub(parked.refused_for);
        Self { refused_since: since, ..Self::new(parked.after, max_pause) }
    }

    /// Restarts the time of the refusals, because the receiver was away: earlier refusals say nothing about this
    /// classroom.
    pub(super) fn receiver_is_back(&mut self, now: Instant) {
        self.refused_since = self.refused_since.map(|_| now);
        self.backoff.reset();
        self.next_attempt = now;
    }

    pub(super) fn refused_for(&self) -> Duration {
        self.refused_since.map(|since| since.elapsed()).unwrap_or_default()
    }
}
