//! The node's lease, renewed at intervals and lost when another node takes it; and the reaping of dead nodes (PROTOCOL 5).
//!
//! Invariant: sockets close only on a lost epoch, never on a clock; a node beside others reaps only after it has renewed its
//! own lease without a gap for a whole one, and not less than [`RECOVERY`], so that after an outage of the database nobody
//! alive is reaped. Nothing holds up the renewal: neither reaping, however much there is, nor the pool's other callers.
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
/// How long nodes may take to find the database again after an outage, where their leases are shorter.
const RECOVERY: Duration = Duration::from_secs(2);

/// From one renewal to the next, or a quarter of the lease where that is less: a connection whose session was taken over on
/// another node hears of it within a second.
const RENEW_EVERY: Duration = Duration::from_millis(750);

fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// For alerts: a lease that is not renewed in time is taken.
fn note_renewal() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!(names::LEASE_RENEWED).set(now.as_secs_f64());
}

/// Renews the lease, and reaps dead nodes.
pub struct LeaseKeeper {
    /// Where the lease is.
    pub store: Arc<dyn Store>,
    /// A dead node's fields go with its sessions.
    pub key_cleanup: KeyCleanup,
    /// Where replaced connections live.
    pub connections: Arc<dyn Connections>,
    /// How to enter again after a lost lease.
    pub registration: Registration,
    /// The lease that writers use.
    pub lease: watch::Sender<Lease>,
    /// How many nodes live, for the drain.
    pub nodes: watch::Sender<u32>,
}

impl LeaseKeeper {
    /// Renews the lease until the task is dropped. Reaping, which may take long, runs beside the renewal and never holds it up.
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
                        // The connections live, and their sessions are checked ([`rollcall_runtime::node::session_check`]).
                        Ok(false) if lost_commits => warn!("the database has lost this node's row: it registers anew"),
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

    /// Their sessions are others' by now. Who is told twice, or after it left, is not there any more.
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

    /// An operator ended their sessions, or takes them out of a lesson.
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

    /// Before all are told to come again: those that must not.
    async fn kick_late(&self, node: NodeId) {
        match self.store.kicks(node).await {
            Ok(kicked) => self.kick(node, &kicked).await,
            Err(error) => warn!(%error, "connections that were kicked are told to come again"),
        }
    }

    /// Ends what dead nodes left, a batch at a time, while it may.
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

    /// The epoch is another's: nothing here may go on. Clients come back to a node that holds its lease.
    async fn close_all(&self) {
        error!("this node's lease was taken: it was stopped or cut off for too long; closing its sockets");
        self.connections.close_all(SessionError::InternalServerError).await;
    }

    /// Whether there is a new lease.
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
