//! The webhook: this installation's events of presence, posted to an address of the operator's (PROTOCOL 10).
//!
//! One node of an installation delivers, while its lease holds; the cursor in SQL says how far. [`delivery`] reads the
//! events in their order ([`log`]) and posts them ([`receiver`]), those of one classroom one after the other. A classroom
//! whose events the receiver refuses while it takes others' is parked: it has a cursor of its own
//! ([`retry`]), and holds up nobody else.
//!
//! Invariant: an event is posted until it was taken, was given up, or is too old. The cursor moves only afterwards, under
//! the node's epoch, so nothing is lost with a node. What is posted twice has the same offset, and offsets of one
//! classroom ascend but for that.
mod attempts;
mod backoff;
mod delivery;
mod log;
mod parked;
mod pending;
mod receiver;
mod retry;
mod turn;

use std::{sync::Arc, time::Duration};

use hyper::Uri;
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use self::{log::EventLog, receiver::Receiver, turn::Turn};
use crate::http_client::{egress::Egress, signature::SigningKey};
use rollcall_base::names;
use rollcall_bus::Bus;
use rollcall_store::{Lease, Store};

/// Between two attempts to become the node that delivers.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The receiver.
    pub url: Uri,
    /// Signs each request.
    pub key: SigningKey,
    /// How long a request may take.
    pub timeout: Duration,
    /// How many requests may be under way at the same time, each with other classrooms' events.
    pub concurrency: usize,
    /// The longest pause between two attempts.
    pub max_pause: Duration,
    /// How long a refused event holds up its classroom.
    pub hold: Duration,
    /// How many classrooms may be parked.
    pub max_parked: usize,
    /// How long events are kept for the receiver where no stream keeps them.
    pub max_age: Duration,
}

/// Delivers events to the receiver, on the node whose turn it is.
pub struct Webhook {
    options: WebhookOptions,
    store: Arc<dyn Store>,
    lease: watch::Receiver<Lease>,
    log: EventLog,
    receiver: Receiver,
}

impl Webhook {
    /// Reads the events from the stream where there is one, else from SQL.
    #[must_use]
    pub fn new(
        options: WebhookOptions,
        store: Arc<dyn Store>,
        stream: Option<Arc<dyn Bus>>,
        installation: Uuid,
        lease: watch::Receiver<Lease>,
        egress: &Egress,
    ) -> Self {
        let receiver = Receiver::new(&options, egress);
        let log = match stream {
            Some(bus) => EventLog::Stream { bus, installation },
            None => EventLog::Table { store: Arc::clone(&store), epoch: installation.to_string() },
        };
        Self { options, store, lease, log, receiver }
    }

    /// Delivers until the task is dropped; every fault is waited out.
    pub async fn run(self) {
        loop {
            let lease = *self.lease.borrow();
            match self.store.claim_webhook(lease).await {
                Ok(Some(state)) => {
                    info!("this node delivers to the webhook");
                    let turn = Turn::new(&self, lease, state);
                    let ended = tokio::select! {
                        ended = turn.deliver() => ended,
                        ended = turn.deliver_parked() => ended,
                    };
                    warn!(%ended, "this node does not deliver to the webhook any more");
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "the webhook waits for the database"),
            }
            metrics::gauge!(names::WEBHOOK_LAG).set(0.0);
            metrics::gauge!(names::WEBHOOK_PARKED).set(0.0);
            tokio::time::sleep(CLAIM_EVERY).await;
        }
    }
}
