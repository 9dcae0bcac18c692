//! The parts that answer on the operators' address (PROTOCOL 7).
use std::sync::Arc;

use super::{
    access::Access, acts::Acts, board::Board, health::Health, pages::Pages, reply::HttpError, tries::FailedTries,
};
use crate::{demo::Demo, metrics::Metrics, rooms::Rooms};
use rollcall_bus::{Bus, EventPublisher};
use rollcall_keys::LessonKeys;
use rollcall_presence::{operator::Operator, outbox_gauges::OutboxGauges};
use rollcall_store::{Store, StoreError};

/// The parts that the endpoints use.
pub struct Admin {
    /// Reads lists and counts.
    pub store: Arc<dyn Store>,
    /// Reads seats.
    pub keys: Arc<dyn LessonKeys>,
    /// Reads events.
    pub bus: Arc<dyn Bus>,
    /// Publishes events.
    pub publisher: EventPublisher,
    /// Knows which rooms have members on this node.
    pub rooms: Rooms,
    /// Ends sessions, and erases users.
    pub operator: Operator,
    /// Answers `/readyz`.
    pub health: Arc<Health>,
    /// Answers `/metrics`.
    pub metrics: Metrics,
    /// The gauges that are measured when `/metrics` is read.
    pub outbox: OutboxGauges,
    /// Decides which requests are answered.
    pub access: Access,
    /// The most recent changes.
    pub acts: Arc<Acts>,
    /// Limits tries with wrong tokens.
    pub tries: FailedTries,
    /// The console's pages.
    pub pages: Pages,
    /// The state of the nodes for the console.
    pub board: Board,
    /// Signs the demo's tokens. `None` if a key is configured.
    pub demo: Option<Demo>,
    /// The largest event, in bytes.
    pub max_event: usize,
}

impl Admin {
    /// Returns the error for a store that does not answer or refuses.
    pub(super) fn refusal(&self, error: &StoreError) -> HttpError {
        tracing::warn!(%error, "a request to the API failed");
        HttpError::away(self.store.name())
    }
}
