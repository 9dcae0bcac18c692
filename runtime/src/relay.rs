//! From the outbox to the bus: what was committed is published, in order, and forgotten once it is stored there.
//!
//! Invariant: only committed rows are published, each with the same message id every time; rows of one agent in one
//! classroom are never in flight together, so a failed publish cannot be overtaken.
use std::{sync::Arc, time::Duration};

use rollcall_schema::{AgentEvent, Subject};
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use crate::{
    bus::{Bus, Publication},
    failpoint, names,
    store::{Outbox, OutboxRow, Store, StoreError},
};

const BATCH: usize = 1_000;
const CLAIM_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What the relay needs.
pub struct Relay {
    /// Holds the outbox.
    pub store: Arc<dyn Store>,
    /// Where events go.
    pub bus: Arc<dyn Bus>,
    /// Part of every message id.
    pub installation: Uuid,
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
            let rows = outbox.read(BATCH).await?;
            if rows.is_empty() {
                outbox.wait(CLAIM_EVERY).await?;
                continue;
            }
            failpoint::reach("outbox read");
            let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
            let results = self.bus.publish(rows.iter().map(|row| self.publication(row)).collect()).await;
            let stored: Vec<i64> =
                ids.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(id, _)| *id).collect();
            failpoint::reach("outbox published");
            if !stored.is_empty() {
                outbox.delete(&stored).await?;
            }
            if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
                warn!(%error, waiting = ids.len() - stored.len(), "events wait in the outbox");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    fn publication(&self, row: &OutboxRow) -> Publication {
        let event = AgentEvent { change: row.change, session: row.session, agent: &row.agent };
        Publication {
            subject: Subject::agent(row.classroom),
            message_id: Some(event.message_id(self.installation)),
            headers: event.headers(),
            // Without room to spare: the bus in process keeps it.
            body: event.body().into_boxed_slice().into(),
        }
    }
}
