//! The node's lease: renewed at each pulse, lost when another node took it, and the taking of others' (PROTOCOL 5).
//!
//! Invariant: sockets close only on a lost epoch, never on a clock; a node beside others reaps only after it has renewed its
//! own lease without a gap for a whole one, and not less than [`COMEBACK`], so that after an outage of the database nobody
//! alive is reaped. It renews its own while it reaps, however much there is.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rollcall_schema::{NodeId, SessionError, Sid};
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{error, info, warn};

use crate::{
    failpoint,
    gateway::{Command, Mailboxes},
    leavings::Leavings,
    names,
    store::{Lease, Registration, Store, StoreError},
};

/// How many sessions of a dead node end in one transaction.
const REAP_BATCH: usize = 500;
/// How long nodes may take to find the database again after an outage, where their leases are shorter.
const COMEBACK: Duration = Duration::from_secs(2);

/// What the pulse needs.
pub struct Pulse {
    /// Where the lease is.
    pub store: Arc<dyn Store>,
    /// A dead node's fields go with its sessions.
    pub leavings: Leavings,
    /// Where replaced connections live.
    pub mailboxes: Mailboxes,
    /// How to enter again after a lost lease.
    pub registration: Registration,
    /// The lease that writers use.
    pub lease: watch::Sender<Lease>,
    /// How many nodes live, for the drain.
    pub nodes: watch::Sender<u32>,
}

impl Pulse {
    /// Pulses until the task is dropped.
    pub async fn run(self) {
        let period = (self.registration.lease / 4).min(Duration::from_millis(500));
        let patience = self.registration.lease.max(COMEBACK);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed_since = Instant::now();
        let mut renewed_at = Instant::now();
        loop {
            ticks.tick().await;
            failpoint::reach("pulse");
            let lease = *self.lease.borrow();
            match self.store.pulse(lease, self.registration.lease).await {
                Ok(pulse) => {
                    if pulse.had_run_out || renewed_at.elapsed() > self.registration.lease {
                        renewed_since = Instant::now();
                    }
                    renewed_at = Instant::now();
                    self.nodes.send_replace(pulse.nodes);
                    metrics::gauge!(names::OUTBOX_ROWS).set(pulse.outbox_rows as f64);
                    metrics::gauge!(names::OUTBOX_LAG).set(pulse.outbox_lag.as_secs_f64());
                    self.replace(lease.node, &pulse.replaced).await;
                    if !self.store.shared() || renewed_since.elapsed() >= patience {
                        self.reap(Instant::now() + period).await;
                    }
                }
                Err(StoreError::Fenced) => {
                    self.start_over().await;
                    renewed_since = Instant::now();
                }
                Err(error) => warn!(%error, "the lease was not renewed"),
            }
        }
    }

    /// Their sessions are others' by now. Who is told twice, or after it left, is not there any more.
    async fn replace(&self, node: NodeId, replaced: &[Sid]) {
        for sid in replaced {
            self.mailboxes.close(*sid, SessionError::Replaced).await;
        }
        if !replaced.is_empty()
            && let Err(error) = self.store.told(node, replaced).await
        {
            warn!(%error, "connections that were replaced are told again");
        }
    }

    /// Ends what dead nodes left, a batch at a time until there is nothing more, or until the next pulse is due.
    async fn reap(&self, next_pulse: Instant) {
        while Instant::now() < next_pulse {
            let lease = *self.lease.borrow();
            let reaped = match self.store.reap(lease, REAP_BATCH).await {
                Ok(0) => return,
                Ok(reaped) => reaped,
                Err(error) => return warn!(%error, "a dead node's sessions are left for the next pulse"),
            };
            failpoint::reach("dead node reaped");
            info!(sessions = reaped, "ended sessions of a dead node");
            self.leavings.look();
        }
    }

    /// The epoch is another's: nothing here may go on. Clients come back to a node that holds its lease.
    async fn start_over(&self) {
        error!("this node's lease was taken: it was stopped or cut off for too long; closing its sockets");
        self.mailboxes.broadcast(|| Command::CloseAll(SessionError::InternalServerError)).await;
        match self.store.register(&self.registration).await {
            Ok(lease) => {
                self.lease.send_replace(lease);
            }
            Err(error) => error!(%error, "no new lease yet"),
        }
    }
}
