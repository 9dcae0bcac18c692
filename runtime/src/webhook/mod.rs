//! The webhook posts this installation's events of presence to an address of the operator (PROTOCOL 10).
//!
//! One node of an installation delivers while its lease is valid. The cursor in SQL says how far. [`delivery`] reads
//! the events in their order ([`log`]) and posts them ([`receiver`]). The events of one classroom are posted one after
//! the other. If the receiver refuses the events of a classroom while it accepts those of others, the classroom is
//! parked: it gets its own cursor ([`parked_delivery`]), and delays no other classroom.
//!
//! Invariant: an event is posted until the receiver accepts it, or the gateway gives it up, or it is too old. The
//! cursor moves only after that, under the node's epoch, so the failure of a node loses no event. An event that is
//! posted twice has the same offset both times. Apart from that, the offsets of one classroom ascend.
mod attempts;
mod backoff;
mod delivery;
mod log;
mod parked;
mod parked_delivery;
mod pending;
mod receiver;
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

/// The time between two attempts to become the node that delivers.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// The address that events are posted to, and how they are posted.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The receiver's address.
    pub url: Uri,
    /// Signs each request.
    pub key: SigningKey,
    /// How long a request may take.
    pub timeout: Duration,
    /// How many requests may be in flight at the same time. No two of them have events of the same classroom.
    pub concurrency: usize,
    /// The longest pause between two attempts.
    pub max_pause: Duration,
    /// How long a refused event may delay the other events of its classroom.
    pub hold: Duration,
    /// How many classrooms may be parked.
    pub max_parked: usize,
    /// How long the database keeps events for the receiver if there is no stream.
    pub max_age: Duration,
}

/// Delivers events to the receiver while it is this node's turn.
pub struct Webhook {
    options: WebhookOptions,
    store: Arc<dyn Store>,
    lease: watch::Receiver<Lease>,
    log: EventLog,
    receiver: Receiver,
}

impl Webhook {
    /// Creates a webhook. The webhook reads the events from the stream if there is one, and otherwise from SQL.
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

    /// Delivers until the task is dropped. After a fault it tries again.
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
