//! Delivers the events in their order, while it is this node's turn.
//!
//! All events that were read and not accepted are [`Pending`]. While the receiver accepts all events, they are sent
//! packed, whatever their classrooms. After a refusal they are sent packed again, and after a second refusal each
//! classroom's events are sent alone, so that one invalid event delays no other classroom. If no event at all is
//! accepted, the receiver is away: a few classrooms' events are tried with growing pauses, and all other events wait.
//!
//! Invariant: the cursor in SQL is never past a pending event.
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rollcall_schema::Offset;
use tracing::{error, info, warn};

use super::{
    attempts::{Attempts, Mode},
    log::{LogRead, Page},
    parked::Parked,
    pending::{Batch, Pending},
    receiver::Refusal,
    turn::{Ended, Turn},
};
use rollcall_base::names;
use rollcall_store::{ParkedClassroom, WebhookCursor};

/// How many events are read at once. No more are read while this many are pending.
const PAGE: usize = 4000;
/// The pause before the next read, if there were no events.
const POLL: Duration = Duration::from_millis(200);
/// The pause after the log could not be read.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// How often the cursor is moved past the offsets of other kinds of events.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How often a node that does not move the cursor checks whether it is still its turn.
const CHECK_EVERY: Duration = Duration::from_secs(5);

impl Turn<'_> {
    /// Delivers until the node's turn ends, or the database is away.
    pub(super) async fn deliver(&self) -> Ended {
        let mut attempts = Attempts::new(self.webhook.options.max_pause);
        let (mut pending, mut saved, mut checked) = (Pending::default(), Instant::now(), Instant::now());
        loop {
            if let Err(ended) = self.round(&mut pending, &mut attempts, &mut saved, &mut checked).await {
                return ended;
            }
        }
    }

    async fn round(
        &self,
        pending: &mut Pending,
        attempts: &mut Attempts,
        saved: &mut Instant,
        checked: &mut Instant,
    ) -> Result<(), Ended> {
        if *self.webhook.lease.borrow() != self.lease {
            return Err(Ended::Lost);
        }
        if checked.elapsed() >= CHECK_EVERY {
            self.webhook.store.claim_webhook(self.lease).await?.ok_or(Ended::Lost)?;
            self.forget().await?;
            *checked = Instant::now();
        }
        let more = pending.len() < PAGE && self.read(pending).await?;
        let lag = pending.first().and_then(|first| first.stored).map(|stored| stored.elapsed().as_secs_f64());
        metrics::gauge!(names::WEBHOOK_LAG).set(lag.unwrap_or_default());
        if pending.is_empty() {
            if saved.elapsed() >= SAVE_EVERY {
                self.save(pending).await?;
                *saved = Instant::now();
            }
            if !more {
                tokio::time::sleep(POLL).await;
            }
            return Ok(());
        }
        let batches = match attempts.mode {
            Mode::Packed => pending.packed(),
            Mode::Alone => pending.alone(),
            Mode::Probe => pending.probes(self.webhook.options.concurrency),
        };
        let (taken, refused) = self.send(batches, pending).await;
        if taken > 0 {
            self.save(pending).await?;
            (*saved, *checked) = (Instant::now(), Instant::now());
        }
        if refused == 0 {
            attempts.succeeded();
            return Ok(());
        }
        attempts.failed(taken > 0);
        self.park_refused(pending, attempts.mode).await?;
        tokio::time::sleep(attempts.pause()).await;
        Ok(())
    }

    /// Reads the next events. Returns whether there are more events now.
    async fn read(&self, pending: &mut Pending) -> Result<bool, Ended> {
        let after = {
            let state = self.state.lock();
            WebhookCursor { epoch: state.cursor.epoch.clone(), offset: state.read }
        };
        match self.webhook.log.read(&after, PAGE).await {
            Ok(LogRead::Page(Page { events, through, more })) => {
                let mut state = self.state.lock();
                state.read = through;
                let due = events.into_iter().filter(|event| !state.parked.contains_key(&event.classroom));
                due.for_each(|event| pending.add(event));
                Ok(more)
            }
            // The events that were read before are first delivered under their own epoch.
            Ok(LogRead::Restart(_)) if !pending.is_empty() => Ok(false),
            Ok(LogRead::Restart(cursor)) => {
                info!(epoch = cursor.epoch, offset = %cursor.offset, "the webhook begins with other offsets");
                self.webhook.store.restart_webhook(self.lease, &cursor).await?;
                let mut state = self.state.lock();
                if !state.parked.is_empty() {
                    error!(classrooms = state.parked.len(), "events of parked classrooms were not delivered");
                    let lost = state.parked.len() as u64;
                    metrics::counter!(names::WEBHOOK_DROPPED, "reason" => "aged_out").increment(lost);
                }
                state.parked.clear();
                (state.read, state.cursor) = (cursor.offset, cursor);
                Ok(true)
            }
            Err(error) => {
                warn!(%error, "events for the webhook wait");
                tokio::time::sleep(LOG_PAUSE).await;
                Ok(false)
            }
        }
    }

    /// Sends the batches in parallel. Returns how many requests were accepted, and how many were refused.
    async fn send(&self, batches: Vec<Batch>, pending: &mut Pending) -> (usize, usize) {
        let epoch = self.state.lock().cursor.epoch.clone();
        let epoch = epoch.as_str();
        let several = batches.len() > 1;
        let (mut taken, mut refused, mut away) = (0, 0, false);
        let post = async |batch: Batch| {
            let began = Instant::now();
            let outcome = self.webhook.receiver.post(epoch, &batch.events).await;
            (batch, began, outcome)
        };
        let mut sent =
            std::pin::pin!(stream::iter(batches).map(post).buffer_unordered(self.webhook.options.concurrency));
        while let Some((batch, began, outcome)) = sent.next().await {
            match outcome {
                Ok(()) => {
                    taken += 1;
                    metrics::counter!(names::WEBHOOK_EVENTS).increment(batch.events.len() as u64);
                    pending.taken(&batch);
                    self.state.lock().taken();
                }
                Err(refusal) => {
                    if refused == 0 {
                        warn!(%refusal, "the webhook's receiver does not take events; they are sent again");
                    }
                    refused += 1;
                    away |= matches!(refusal, Refusal::Away(_));
                    pending.refused(&batch, began);
                }
            }
        }
        // If there was only one request, its refusal says little about the receiver.
        if taken == 0 && (several || away) {
            self.state.lock().away = true;
        }
        (taken, refused)
    }

    /// Moves the cursor to the first pending event.
    async fn save(&self, pending: &Pending) -> Result<(), Ended> {
        let cursor = {
            let state = self.state.lock();
            let offset = pending.first().map_or(state.read, |first| Offset(first.offset.0 - 1));
            WebhookCursor { epoch: state.cursor.epoch.clone(), offset }
        };
        self.webhook.store.move_webhook(self.lease, &cursor).await?;
        self.state.lock().cursor = cursor;
        self.forget().await
    }

    /// Deletes the events before all cursors, which are no longer needed.
    async fn forget(&self) -> Result<(), Ended> {
        let through = {
            let state = self.state.lock();
            let parked = state.parked.values().map(|parked| parked.after);
            parked.fold(state.cursor.offset, Offset::min)
        };
        Ok(self.webhook.log.forget(through, self.webhook.options.max_age).await?)
    }

    /// Parks classrooms whose events are refused while events of other classrooms are accepted. If memory is full of
    /// the events of a few classrooms, the classroom with the most events is parked in any case, because only events of
    /// other classrooms can show whether the receiver is away.
    async fn park_refused(&self, pending: &mut Pending, mode: Mode) -> Result<(), Ended> {
        let last_taken = self.state.lock().last_taken;
        let mut refused = pending.refused_alone(last_taken);
        let few = pending.len() >= PAGE && pending.classrooms() <= self.webhook.options.concurrency;
        if refused.is_empty() && few && mode == Mode::Probe {
            refused.extend(pending.largest());
        }
        for classroom in refused {
            if self.state.lock().parked.len() >= self.webhook.options.max_parked {
                error!("the webhook's receiver refuses events of too many classrooms: all events wait");
                break;
            }
            let Some(after) = pending.remove(classroom) else { continue };
            let epoch = self.state.lock().cursor.epoch.clone();
            self.park(&epoch, ParkedClassroom { classroom, after, refused_for: Duration::ZERO }).await?;
            let mut state = self.state.lock();
            state.parked.insert(classroom, Parked::new(after, self.webhook.options.max_pause));
            metrics::gauge!(names::WEBHOOK_PARKED).set(state.parked.len() as f64);
            warn!(%classroom, %after, "the webhook's receiver refuses this classroom's events: it waits alone");
        }
        Ok(())
    }
}
