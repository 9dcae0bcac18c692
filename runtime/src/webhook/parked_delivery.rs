//! Classrooms whose events the receiver refused while it accepted events of others. Each waits alone with its own
//! cursor.
//!
//! Refused events are sent again in halves, down to a single event. If an event is refused for longer than the limit
//! while the receiver accepts events of others, it is given up: it is counted and written to the log. While the
//! receiver goes on refusing a classroom's events, the classroom stays parked, and each of its events is tried once.
//! When the receiver has accepted all of them, the common cursor applies to the classroom again.
//!
//! Invariant: a classroom is parked before the common cursor passes its first refused event, and until its own cursor
//! has reached the last event that was read.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use rollcall_schema::{ClassroomId, Offset};
use tracing::{error, info, warn};

use super::{
    parked::Parked,
    pending::MAX_BATCH,
    receiver::Refusal,
    turn::{Ended, Turn},
};
use rollcall_base::names;
use rollcall_store::{ParkedClassroom, WebhookCursor};

/// The time between two searches for classrooms whose next attempt is due.
const POLL: Duration = Duration::from_millis(100);

impl Turn<'_> {
    /// Delivers the events of parked classrooms.
    pub(super) async fn deliver_parked(&self) -> Ended {
        let concurrency = self.webhook.options.concurrency;
        loop {
            let due: Vec<ClassroomId> = {
                let (state, now) = (self.state.lock(), Instant::now());
                let due = state.parked.iter().filter(|(_, parked)| parked.next_attempt <= now);
                due.map(|(classroom, _)| *classroom).take(concurrency).collect()
            };
            if due.is_empty() {
                tokio::time::sleep(POLL).await;
            }
            let attempts = stream::iter(due).map(|classroom| self.attempt(classroom)).buffer_unordered(concurrency);
            let mut attempts = std::pin::pin!(attempts);
            while let Some(attempt) = attempts.next().await {
                if let Err(ended) = attempt {
                    return ended;
                }
            }
        }
    }

    /// Sends the next events of one classroom.
    async fn attempt(&self, classroom: ClassroomId) -> Result<(), Ended> {
        let Some((after, through, max)) = ({
            let state = self.state.lock();
            let after = |parked: &Parked| WebhookCursor { epoch: state.cursor.epoch.clone(), offset: parked.after };
            state.parked.get(&classroom).map(|parked| (after(parked), state.read, parked.max))
        }) else {
            return Ok(());
        };
        // Offsets may begin anew during an attempt. The attempt's offsets are of this epoch.
        let epoch = after.epoch.as_str();
        let events = match self.webhook.log.read_one(classroom, &after, through, max).await {
            Ok(events) => events.into_iter().map(Arc::new).collect::<Vec<_>>(),
            Err(error) => {
                warn!(%error, "events of a parked classroom wait");
                self.put_off(classroom);
                return Ok(());
            }
        };
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return self.caught_up(classroom, epoch, through).await;
        };
        match self.webhook.receiver.post(epoch, &events).await {
            Ok(()) => {
                metrics::counter!(names::WEBHOOK_EVENTS).increment(events.len() as u64);
                self.state.lock().taken();
                self.advance(classroom, epoch, last.offset, true).await
            }
            Err(_) if events.len() > 1 => {
                self.refused(classroom);
                self.halve(classroom, events.len());
                Ok(())
            }
            Err(refusal) if self.gives_up(classroom, &refusal) => {
                let reason = "refused";
                error!(%classroom, offset = %first.offset, %refusal, "the webhook gives an event up");
                metrics::counter!(names::WEBHOOK_DROPPED, "reason" => reason).increment(1);
                self.advance(classroom, epoch, first.offset, false).await
            }
            Err(_) => {
                self.refused(classroom);
                self.put_off(classroom);
                Ok(())
            }
        }
    }

    /// Handles a classroom whose events, as far as they were read, were all delivered or given up. The classroom is no
    /// longer parked, unless the receiver still refuses its events.
    async fn caught_up(&self, classroom: ClassroomId, epoch: &str, through: Offset) -> Result<(), Ended> {
        {
            let mut state = self.state.lock();
            let (read, hold) = (state.read, self.webhook.options.hold);
            let Some(parked) = state.parked_in(epoch, classroom) else { return Ok(()) };
            parked.after = through;
            parked.next_attempt = Instant::now() + POLL;
            // A classroom whose events are refused stays parked for the same time again, so that its new events delay
            // no other classroom.
            let refused = parked.refused_since.is_some() && parked.refused_for() < 2 * hold;
            if refused || through < read {
                return Ok(());
            }
            state.parked.remove(&classroom);
            metrics::gauge!(names::WEBHOOK_PARKED).set(state.parked.len() as f64);
        }
        info!(%classroom, "the webhook delivers this classroom's events with the others again");
        Ok(self.webhook.store.unpark_classroom(self.lease, classroom).await?)
    }

    /// Moves the classroom's cursor.
    async fn advance(&self, classroom: ClassroomId, epoch: &str, after: Offset, taken: bool) -> Result<(), Ended> {
        let refused_for = {
            let mut state = self.state.lock();
            let Some(parked) = state.parked_in(epoch, classroom) else { return Ok(()) };
            parked.after = after;
            parked.next_attempt = Instant::now();
            if taken {
                parked.refused_since = None;
                parked.max = (2 * parked.max).min(MAX_BATCH);
                parked.backoff.reset();
            }
            parked.refused_for()
        };
        self.park(epoch, ParkedClassroom { classroom, after, refused_for }).await
    }

    /// Sends half as many events next time, without a longer pause.
    fn halve(&self, classroom: ClassroomId, events: usize) {
        if let Some(parked) = self.state.lock().parked.get_mut(&classroom) {
            parked.max = (events / 2).max(1);
            parked.next_attempt = Instant::now() + POLL;
        }
    }

    fn refused(&self, classroom: ClassroomId) {
        if let Some(parked) = self.state.lock().parked.get_mut(&classroom) {
            parked.refused_since.get_or_insert_with(Instant::now);
        }
    }

    fn put_off(&self, classroom: ClassroomId) {
        if let Some(parked) = self.state.lock().parked.get_mut(&classroom) {
            parked.next_attempt = Instant::now() + parked.backoff.pause();
        }
    }

    /// Returns whether an event was refused for longer than the limit while the receiver accepted events of others.
    fn gives_up(&self, classroom: ClassroomId, refusal: &Refusal) -> bool {
        let (state, hold) = (self.state.lock(), self.webhook.options.hold);
        let since = state.parked.get(&classroom).and_then(|parked| parked.refused_since);
        let refused_long = since.is_some_and(|since| since.elapsed() >= hold);
        let takes_others = state.last_taken.is_some_and(|at| since.is_some_and(|since| at > since));
        let refuses = matches!(refusal, Refusal::Refused(_));
        refused_long && takes_others && refuses && !state.away
    }
}
