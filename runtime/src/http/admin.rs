//! What answers on the operators' address, and what it needs for that (PROTOCOL 7 and 10).
use std::sync::Arc;

use super::{
    access::Access, acts::Acts, board::Board, health::Health, pages::Pages, reply::HttpError, tries::FailedTries,
};
use crate::{demo::Demo, metrics::Metrics, rooms::Rooms};
use rollcall_bus::{Bus, EventPublisher};
use rollcall_keys::LessonKeys;
use rollcall_presence::{operator::Operator, outbox_gauges::OutboxGauges};
use rollcall_store::{Store, StoreError};

/// What the endpoints need.
pub struct Admin {
    /// Lists and counts.
    pub store: Arc<dyn Store>,
    /// Reads seats.
    pub keys: Arc<dyn LessonKeys>,
    /// Reads events.
    pub bus: Arc<dyn Bus>,
    /// Publishes events.
    pub publisher: EventPublisher,
    /// Which rooms have members here.
    pub rooms: Rooms,
    /// Ends sessions, and erases users.
    pub operator: Operator,
    /// `/readyz`.
    pub health: Arc<Health>,
    /// `/metrics`.
    pub metrics: Metrics,
    /// The gauges that are measured when `/metrics` is read.
    pub outbox: OutboxGauges,
    /// Which requests are answered.
    pub access: Access,
    /// What was changed lately.
    pub acts: Arc<Acts>,
    /// Limits wrong tokens.
    pub tries: FailedTries,
    /// The console's pages.
    pub pages: Pages,
    /// What the console shows of the nodes.
    pub board: Board,
    /// What signs the demo's tokens; none where a key is configured.
    pub demo: Option<Demo>,
    /// The largest event, in bytes.
    pub max_event: usize,
}

impl Admin {
    /// The store does not answer, or refuses.
    pub(super) fn refusal(&self, error: &StoreError) -> HttpError {
        tracing::warn!(%error, "a request to the API failed");
        HttpError::away(self.store.name())
    }
}
