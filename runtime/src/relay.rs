//! From the outbox to the bus: what was committed is published, in order, and forgotten once it is stored there.
//!
//! Invariant: only committed rows are published, each with the same message id every time; rows of one agent in one
//! classroom are never in flight together, so a failed publish cannot be overtaken.
use std::{collections::HashMap, sync::Arc, time::Duration};

use rollcall_schema::{AgentEvent, Subject};
use tokio::{sync::watch, time::Instant};
use tracing::warn;
use uuid::Uuid;

use crate::{
    bus::{Bus, BusError, Publication},
    failpoint, names,
    store::{Outbox, OutboxRow, Store, StoreError},
};

const BATCH: usize = 2_000;
/// From one round to the next, unless much is waiting: a round costs nearly the same for one row as for fifty.
const ROUND: Duration = Duration::from_millis(5);
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// An event that waited for longer waited for the bus, or for a disk that stood still.
const LATE: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Fewer rows than these leave time until the next round.
const FEW: usize = 100;
/// How long after it was asked for a row may be sent: by far less than a relay that stands still keeps its claim, so that
/// nothing is sent again long after another relay sent it.
const FRESH: Duration = Duration::from_secs(2);

/// What the relay needs.
pub struct Relay {
    /// Holds the outbox.
    pub store: Arc<dyn Store>,
    /// Where events go.
    pub bus: Arc<dyn Bus>,
    /// Part of every message id.
    pub installation: Uuid,
    /// Whether it publishes what has waited for longer than [`LATE`]: others then leave it the processor.
    pub late: watch::Sender<bool>,
}

impl Relay {
    /// Relays until the task is dropped; every fault is waited out.
    pub async fn run(self) {
        loop {
            let error = match self.store.outbox().await {
                Ok(outbox) => match self.drain(outbox).await {
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.late.send_replace(false);
            warn!(%error, "the outbox waits for the database");
            metrics::counter!(names::BACKEND_ERRORS, "backend" => self.store.name(), "operation" => "outbox")
                .increment(1);
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// One claim's life: it ends with its connection.
    async fn drain(&self, mut outbox: Box<dyn Outbox>) -> Result<std::convert::Infallible, StoreError> {
        let mut claimed: Option<Instant> = None;
        loop {
            if claimed.is_none_or(|at| at.elapsed() >= CLAIM_EVERY) {
                outbox.claim().await?;
                claimed = Some(Instant::now());
            }
            let asked = Instant::now();
            let rows = outbox.read(BATCH).await?;
            if rows.is_empty() {
                self.late.send_replace(false);
                outbox.wait(CLAIM_EVERY).await?;
                tokio::time::sleep_until(asked + ROUND).await;
                continue;
            }
            failpoint::reach("outbox read");
            let (mut stored, mut failure) = (Vec::with_capacity(rows.len()), None);
            for turn in turns(&rows) {
                // What follows a failure may be of the same agent.
                if failure.is_some() || asked.elapsed() >= FRESH {
                    break;
                }
                failure = self.publish(&turn, &mut stored).await.err();
            }
            failpoint::reach("outbox published");
            if !stored.is_empty() {
                outbox.delete(&stored).await?;
            }
            self.late.send_replace(!stored.is_empty() && rows.iter().any(|row| row.waited >= LATE));
            if let Some(error) = failure {
                warn!(%error, waiting = rows.len() - stored.len(), "events wait in the outbox");
                tokio::time::sleep(RETRY_AFTER).await;
            } else if rows.len() < FEW {
                tokio::time::sleep_until(asked + ROUND).await;
            }
        }
    }

    /// Adds the ids of those rows that are stored.
    async fn publish(&self, rows: &[&OutboxRow], stored: &mut Vec<i64>) -> Result<(), BusError> {
        let results = self.bus.publish(rows.iter().map(|row| self.publication(row)).collect()).await;
        stored.extend(rows.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(row, _)| row.id));
        results.into_iter().try_for_each(|result| result.map(drop))
    }

    fn publication(&self, row: &OutboxRow) -> Publication {
        let event = AgentEvent { change: row.change, session: row.session, agent: &row.agent };
        Publication {
            subject: Subject::agent(row.classroom),
            message_id: Some(event.message_id(self.installation, row.nonce)),
            headers: event.headers(),
            // Without room to spare: the bus in process keeps it.
            body: event.body().into_boxed_slice().into(),
        }
    }
}

/// The rows in groups with one of each agent in a classroom at most, to be published one group after the other.
fn turns(rows: &[OutboxRow]) -> Vec<Vec<&OutboxRow>> {
    let (mut turns, mut next) = (Vec::<Vec<_>>::new(), HashMap::with_capacity(rows.len()));
    for row in rows {
        let turn = next.entry((row.classroom, &row.agent)).or_insert(0);
        if *turn == turns.len() {
            turns.push(Vec::new());
        }
        turns[*turn].push(row);
        *turn += 1;
    }
    turns
}

#[cfg(test)]
mod tests;
