//! Publishes committed events from the outbox to the bus, in order, and deletes each once the bus has stored it.
//!
//! Invariant: only committed rows are published, each time with the same message id. Rows are read only while the
//! node's claim on their shard holds, and must be sent soon after that: a node that was suspended reads them again
//! first. If the bus may have forgotten the message id of a row, the stream is searched for it before the row is sent
//! again.
mod memory;

use std::{collections::HashMap, sync::Arc, time::Duration};

use rollcall_schema::{Subject, header};
use tokio::{sync::watch, time::Instant};
use tracing::warn;
use uuid::Uuid;

use rollcall_base::{failpoint, names, since::Since};
use rollcall_bus::{Bus, BusError, Fence, Publication, PublishError, YOUNG};
use rollcall_store::{Lease, Outbox, OutboxRow, Store, StoreError};

use self::memory::{Key, Memory, key};

const BATCH: usize = 2_000;
/// The shortest and the longest pause between two rounds, because a round costs nearly the same for one row as for
/// fifty. A round with fewer rows than the first number of [`ROWS`] doubles the pause, and a round with more than the
/// second halves it.
const ROUND: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(25));
const ROWS: (usize, usize) = (4, 16);
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// How soon after a claim the next one may follow. A heartbeat that has found a free shard ends the wait for rows.
const CLAIM_AGAIN: Duration = Duration::from_millis(250);
/// An event that waited for longer than this waited for the bus, or for a disk that was stopped.
const BACKLOGGED_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// After a round with fewer rows than this, the relay pauses for [`ROUND`] before the next one.
const FEW: usize = 100;
/// How long after its read a row may be given to the bus, by both clocks, because the monotonic clock stops while a
/// virtual machine is paused. A claim that held when the row was read holds for longer.
const FRESH: Duration = Duration::from_millis(1200);
/// Half the time for which the stream remembers a message id (PROTOCOL 3).
const HALF_WINDOW: Duration = Duration::from_secs(60);
/// How many rows are searched for in the stream at once.
const LOOK: usize = 20_000;
/// How often rows in quarantine are checked.
const PUT_BACK_EVERY: Duration = Duration::from_secs(20);

/// The task that relays.
pub struct OutboxRelay {
    /// The store with the outbox.
    pub store: Arc<dyn Store>,
    /// The bus to which events go.
    pub bus: Arc<dyn Bus>,
    /// The installation, which is part of every message id.
    pub installation: Uuid,
    /// The lease of this node, which has the claims.
    pub lease: watch::Receiver<Lease>,
    /// Whether the relay publishes events that have waited for longer than [`BACKLOGGED_AFTER`]. Other parts of the
    /// node then leave it the processor.
    pub backlogged: watch::Sender<bool>,
}

/// The result of one batch.
#[derive(Default)]
struct Outcome {
    stored: Vec<Key>,
    refused: Vec<(Key, String)>,
    failure: Option<BusError>,
    behind: bool,
}

impl OutboxRelay {
    /// Relays until the task is dropped. After any error it tries again.
    pub async fn run(self) {
        let mut memory = Memory::default();
        loop {
            let lease = *self.lease.borrow();
            let error = match self.store.open_outbox(lease).await {
                Ok(outbox) => match self.drain(outbox, &mut memory).await {
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.backlogged.send_replace(false);
            warn!(%error, "the outbox waits for the database");
            metrics::counter!(names::BACKEND_ERRORS, "backend" => self.store.name(), "operation" => "outbox")
                .increment(1);
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Publishes on one connection to the outbox, until the first error.
    async fn drain(
        &self,
        mut outbox: Box<dyn Outbox>,
        memory: &mut Memory,
    ) -> Result<std::convert::Infallible, StoreError> {
        let (mut claimed, mut put_back): (Option<Instant>, Option<Instant>) = (None, None);
        let (mut most, mut round) = (BATCH, ROUND.0);
        let (mut held, mut failed) = (0, false);
        memory.begin();
        loop {
            if !outbox.owes() {
                memory.owed.clear();
            }
            if claimed.is_none_or(|at| at.elapsed() >= CLAIM_AGAIN) {
                if held == 0 && failed {
                    failed = self.bus.ping().await.is_err();
                    outbox.bus_is_away(failed);
                }
                held = outbox.claim().await?;
                claimed = Some(Instant::now());
            }
            if put_back.is_none_or(|at| at.elapsed() >= PUT_BACK_EVERY) {
                metrics::gauge!(names::OUTBOX_ASIDE).set(outbox.release_quarantined().await? as f64);
                put_back = Some(Instant::now());
            }
            let (asked, since) = (Instant::now(), Since::now());
            let rows = outbox.read(most).await?;
            if rows.is_empty() {
                self.backlogged.send_replace(false);
                outbox.wait(CLAIM_EVERY).await?;
                tokio::time::sleep_until(asked + round).await;
                continue;
            }
            failpoint::reach("outbox read");
            let backlogged = rows.iter().any(|row| row.waited >= BACKLOGGED_AFTER);
            let (few, all) = (rows.len() < FEW, rows.len());
            round = next_round(round, all);
            // Rows that are known to be stored are deleted together with the others, because no row that was read
            // before a deletion may be published after it.
            let (known, rows) = memory.part(&*outbox, rows);
            let mut outcome = if rows.iter().any(|row| row.waited >= HALF_WINDOW && !memory.absent.contains(&key(row)))
            {
                match self.look(&mut *outbox, memory).await? {
                    // The rows are read again, because their shard may belong to another relay by now.
                    Ok(()) => continue,
                    Err(error) => Outcome { failure: Some(error), ..Outcome::default() },
                }
            } else if rows.is_empty() {
                Outcome::default()
            } else if !since.is_within(FRESH) {
                continue;
            } else {
                self.publish(&rows).await
            };
            failpoint::reach("outbox published");
            let alone = outcome.stored.is_empty() && !outcome.refused.is_empty();
            if alone {
                // If the stream stored nothing, it may refuse every message, so nothing is known about these rows.
                let why = outcome.refused.drain(..).next().map(|(_, why)| BusError(why));
                outcome.failure = outcome.failure.or(why);
            }
            for ((id, _), why) in memory.refused_twice(outcome.refused) {
                warn!(why, "an event is set aside, and later ones of its agent with it");
                metrics::counter!(names::OUTBOX_SET_ASIDE, "reason" => "refused").increment(1);
                outbox.quarantine(&[id], &why).await?;
            }
            let stored = outcome.stored.len();
            outcome.stored.extend(&known);
            memory.forget(&mut *outbox, outcome.stored).await?;
            self.backlogged.send_replace(stored > 0 && backlogged);
            failed = outcome.failure.is_some();
            if let Some(error) = outcome.failure {
                // Messages that were under way may be stored by now, or later.
                memory.absent.clear();
                most = if alone { BATCH } else { 1 };
                warn!(%error, "events wait in the outbox");
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
            most = BATCH;
            if outcome.behind && stored == 0 {
                memory.absent.clear();
            }
            if few {
                tokio::time::sleep_until(asked + round).await;
                if stored + known.len() == all && !backlogged {
                    // A node that commits more rows sends a wake-up, which ends this wait.
                    outbox.wait(CLAIM_EVERY).await?;
                }
            }
        }
    }

    async fn publish(&self, rows: &[OutboxRow]) -> Outcome {
        let results = self.bus.publish(rows.iter().map(|row| self.publication(row)).collect()).await;
        let mut outcome = Outcome::default();
        for (row, result) in rows.iter().zip(results) {
            match result {
                Ok(_) => outcome.stored.push(key(row)),
                Err(PublishError::Refused(why)) => outcome.refused.push((key(row), why)),
                Err(PublishError::Behind) => outcome.behind = true,
                Err(PublishError::Away(error)) => outcome.failure = Some(error),
                Err(error @ PublishError::Busy) => outcome.failure = Some(BusError(error.to_string())),
            }
        }
        outcome
    }

    /// Searches the stream for rows whose message id it may have forgotten, and keeps the claims meanwhile.
    async fn look(&self, outbox: &mut dyn Outbox, memory: &mut Memory) -> Result<Result<(), BusError>, StoreError> {
        let generation = outbox.generation();
        let rows = outbox.read(LOOK).await?;
        let Some(age) = rows.iter().map(|row| row.waited).max() else { return Ok(Ok(())) };
        let old = rows.iter().filter(|row| row.waited >= HALF_WINDOW / 2);
        let ids: HashMap<String, Key> = old.map(|row| (self.message_id(row), key(row))).collect();
        let wanted = ids.keys().cloned().collect();
        let looking = self.bus.stored(&wanted, age);
        tokio::pin!(looking);
        let found = loop {
            tokio::select! {
                found = &mut looking => break found,
                () = tokio::time::sleep(CLAIM_EVERY) => drop(outbox.claim().await?),
            }
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        memory.looked(generation, ids.into_iter().map(|(id, key)| (key, found.contains(&id))));
        Ok(Ok(()))
    }

    fn publication(&self, row: &OutboxRow) -> Publication {
        let event = row.event();
        let mut headers = event.headers();
        headers.extend(row.trace.map(|trace| (header::TRACEPARENT, trace.to_string())));
        Publication {
            subject: Subject::agent(row.classroom),
            message_id: Some(self.message_id(row)),
            headers,
            // The body has no spare capacity, because the bus in the process keeps it.
            body: event.body().into_boxed_slice().into(),
            fence: if row.waited < YOUNG { Fence::FirstTry } else { Fence::AfterLast },
        }
    }

    fn message_id(&self, row: &OutboxRow) -> String {
        row.event().message_id(self.installation, row.nonce)
    }
}

/// Returns the pause after a round with this many rows.
fn next_round(round: Duration, rows: usize) -> Duration {
    match rows {
        few if few < ROWS.0 => (round * 2).min(ROUND.1),
        many if many > ROWS.1 => (round / 2).max(ROUND.0),
        _ => round,
    }
}

#[cfg(test)]
mod tests;
