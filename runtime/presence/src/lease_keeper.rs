//! Renews the node's lease, notices that another node took it, and reaps dead nodes (PROTOCOL 5).
//!
//! Invariant: sockets are closed only because of a lost epoch, never because of a clock. A node beside others reaps
//! only after it has renewed its own lease without a gap for the length of a lease and at least [`RECOVERY`], so that
//! after an outage of the database no living node is reaped. Nothing delays the renewal, neither reaping, however long
//! it takes, nor other callers of the pool.
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rollcall_schema::{NodeId, SessionError, Sid};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior},
};
use tracing::{error, info, warn};

use crate::{Connections, key_cleanup::KeyCleanup};
use rollcall_base::{failpoint, names};
use rollcall_store::{Kick, Lease, Registration, Store, StoreError};

/// How many sessions of a dead node end in one transaction.
const REAP_BATCH: usize = 500;
/// The least time that nodes get to find the database again after an outage, for leases that are shorter.
const RECOVERY: Duration = Duration::from_secs(2);

/// The time between two renewals, or a quarter of the lease if that is less. So a connection whose session was taken
/// over on another node learns of that within a second.
const RENEW_EVERY: Duration = Duration::from_millis(750);

fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Records the renewal for alerts: a lease that is not renewed in time is taken.
fn note_renewal() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!(names::LEASE_RENEWED).set(now.as_secs_f64());
}

/// The task that renews the lease and reaps dead nodes.
pub struct LeaseKeeper {
    /// The store with the leases.
    pub store: Arc<dyn Store>,
    /// Removes the fields of dead nodes, together with their sessions.
    pub key_cleanup: KeyCleanup,
    /// The connections of this node, of which some were replaced or kicked.
    pub connections: Arc<dyn Connections>,
    /// How the node gets a new lease after it lost one.
    pub registration: Registration,
    /// The lease that writers use.
    pub lease: watch::Sender<Lease>,
    /// How many nodes live, for the drain.
    pub nodes: watch::Sender<u32>,
}

impl LeaseKeeper {
    /// Renews the lease until the task is dropped. Reaping may take long, so it runs beside the renewal and never
    /// delays it.
    pub async fn run(self) {
        let may_reap = watch::Sender::new(false);
        tokio::join!(self.renew(&may_reap), self.reap(may_reap.subscribe()));
    }

    fn period(&self) -> Duration {
        (self.registration.lease / 4).min(RENEW_EVERY)
    }

    async fn renew(&self, may_reap: &watch::Sender<bool>) {
        let patience = self.registration.lease.max(RECOVERY);
        let mut ticks = ticks(self.period());
        let mut renewed_since = Instant::now();
        let mut renewed_at = Instant::now();
        let incarnation = self.store.incarnation();
        // The incarnation of the database in which the lease was last found.
        let mut registered = *incarnation.borrow();
        loop {
            ticks.tick().await;
            failpoint::reach("lease renewal begins");
            let lease = *self.lease.borrow();
            match self.store.renew_lease(lease, self.registration.lease).await {
                Ok(reply) => {
                    if reply.was_expired || renewed_at.elapsed() > self.registration.lease {
                        renewed_since = Instant::now();
                    }
                    renewed_at = Instant::now();
                    note_renewal();
                    registered = *incarnation.borrow();
                    self.nodes.send_replace(reply.nodes);
                    self.replace(lease.node, &reply.replaced).await;
                    self.kick(lease.node, &reply.kicks).await;
                    let may = !self.store.shared() || renewed_since.elapsed() >= patience;
                    may_reap.send_replace(may && reply.dead);
                }
                Err(StoreError::Fenced) => {
                    may_reap.send_replace(false);
                    let lost_commits = *incarnation.borrow() != registered;
                    match self.store.knows_node(lease.node).await {
                        // The connections stay open, and their sessions are checked
                        // ([`rollcall_runtime::node::session_check`]).
                        Ok(false) if lost_commits => warn!("the database has lost this node's row: registering again"),
                        Ok(_) => {
                            self.kick_late(lease.node).await;
                            self.close_all().await;
                        }
                        Err(error) => {
                            warn!(%error, "the lease was not renewed");
                            continue;
                        }
                    }
                    if self.register().await {
                        registered = *incarnation.borrow();
                    }
                    renewed_since = Instant::now();
                }
                Err(error) => {
                    may_reap.send_replace(false);
                    warn!(%error, "the lease was not renewed");
                }
            }
        }
    }

    /// Closes connections whose sessions now belong to others. A connection that gets this twice, or after it left, is
    /// not on this node any more.
    async fn replace(&self, node: NodeId, replaced: &[Sid]) {
        for sid in replaced {
            self.connections.close(*sid, SessionError::Replaced).await;
        }
        if !replaced.is_empty()
            && let Err(error) = self.store.ack_takeovers(node, replaced).await
        {
            warn!(%error, "connections that were replaced are told again");
        }
    }

    /// Closes connections whose sessions an operator ended, or takes them out of their lesson.
    async fn kick(&self, node: NodeId, kicks: &[Kick]) {
        for Kick { sid, lesson } in kicks {
            match lesson {
                Some(lesson) => self.connections.leave_lesson(*sid, lesson.clone()).await,
                None => self.connections.close(*sid, SessionError::Kicked).await,
            }
        }
        if !kicks.is_empty()
            && let Err(error) = self.store.ack_kicks(node, kicks).await
        {
            warn!(%error, "connections that were kicked are told again");
        }
    }

    /// Closes the kicked connections before all others are told to reconnect, because kicked clients must not
    /// reconnect.
    async fn kick_late(&self, node: NodeId) {
        match self.store.kicks(node).await {
            Ok(kicked) => self.kick(node, &kicked).await,
            Err(error) => warn!(%error, "connections that were kicked are told to come again"),
        }
    }

    /// Ends the sessions of dead nodes, a batch at a time, while this is allowed.
    async fn reap(&self, may: watch::Receiver<bool>) {
        let mut ticks = ticks(self.period());
        loop {
            ticks.tick().await;
            while *may.borrow() {
                let lease = *self.lease.borrow();
                match self.store.reap(lease, REAP_BATCH).await {
                    Ok(0) => break,
                    Ok(reaped) => {
                        failpoint::reach("dead node reaped");
                        info!(reaped, "ended sessions of a dead node, or took over its stale fields");
                        self.key_cleanup.look();
                    }
                    Err(error) => {
                        warn!(%error, "a dead node's sessions are left for the next try");
                        break;
                    }
                }
            }
        }
    }

    /// Closes all connections, because another node has taken this node's lease. Their clients connect again to a node
    /// that has a lease.
    async fn close_all(&self) {
        error!("this node's lease was taken: it was stopped or cut off for too long; closing its sockets");
        self.connections.close_all(SessionError::InternalServerError).await;
    }

    /// Tries to get a new lease. Returns true if the node has got one.
    async fn register(&self) -> bool {
        match self.store.register(&self.registration).await {
            Ok(lease) => {
                self.lease.send_replace(lease);
                true
            }
            Err(error) => {
                error!(%error, "no new lease yet");
                false
            }
        }
    }
}
