//! The end of a node: readiness first, then goodbyes at a pace, then what is left is written down (PROTOCOL 2).
//!
//! Invariant: it is over at the drain deadline, whatever hangs; what was not written by then is free for other nodes.
use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, interval, timeout_at},
};
use tracing::{info, warn};

use crate::{
    config::Presence,
    departures::Departures,
    gateway::{Command, Mailboxes, RECONNECT_WITHIN},
    leavings::Leavings,
    socket::Workers,
    store::{Lease, Store},
};

/// Between two groups of goodbyes.
const STEP: Duration = Duration::from_millis(50);
/// For the last commits and events, kept free of the deadline.
const LAST: Duration = Duration::from_secs(2);

/// For what follows the drain, and the end of the process.
const EXIT: Duration = Duration::from_millis(500);

/// What a drain needs.
pub struct Drain {
    /// How long, and at which pace.
    pub presence: Presence,
    /// Who is told.
    pub workers: Workers<Command>,
    /// How.
    pub mailboxes: Mailboxes,
    /// Where their sessions go.
    pub departures: Departures,
    /// Where their keys go.
    pub leavings: Leavings,
    /// Where they are written.
    pub store: Arc<dyn Store>,
    /// Given back at the end.
    pub lease: watch::Receiver<Lease>,
    /// Whether there is another node to come back to.
    pub nodes: watch::Receiver<u32>,
}

impl Drain {
    /// Drains.
    pub async fn run(self) {
        let (limit, start) = (self.presence.drain_deadline, Instant::now());
        let deadline = start + limit - EXIT.min(limit / 8);
        let last = deadline - LAST.min(limit / 4);
        let kept = (*self.nodes.borrow() > 1).then(|| last - LAST.min(limit / 4));
        self.departures.drain(kept.unwrap_or(start));
        info!(connections = self.workers.connections(), "draining");
        let _ = timeout_at(last, self.goodbyes(start, kept)).await;
        if timeout_at(last, self.departures.finish()).await.is_err() {
            warn!("sessions are left for other nodes, or for the next start");
        }
        let _ = timeout_at(deadline - LAST.min(limit / 8), self.leavings.finish()).await;
        let _ = timeout_at(deadline - LAST.min(limit / 16), self.published()).await;
        let lease = *self.lease.borrow();
        match timeout_at(deadline, self.store.retire(lease)).await {
            Ok(Ok(())) => info!("drained"),
            Ok(Err(error)) => warn!(%error, "the lease runs out by itself"),
            Err(_) => warn!("the deadline is over"),
        }
    }

    /// Everybody, spread evenly. Where sessions are kept for those who come back elsewhere, all are given the time for it.
    async fn goodbyes(&self, start: Instant, kept: Option<Instant>) {
        let longest = kept.map_or(Duration::MAX, |kept| (kept - start).mul_f64(0.75));
        let steps = self.presence.drain_spread.min(longest).as_millis().div_euclid(STEP.as_millis()).max(1);
        let share = self.workers.connections().div_ceil(usize::try_from(steps).unwrap_or(1)).max(1);
        let each = share.div_ceil(self.mailboxes.len());
        let mut ticks = interval(STEP);
        while self.workers.connections() > 0 {
            ticks.tick().await;
            // Half of what is left, so that there is some for the way, too.
            let left = kept.map_or(Duration::MAX, |kept| kept.saturating_duration_since(Instant::now()) / 2);
            self.mailboxes.broadcast(|| Command::Dismiss(each, RECONNECT_WITHIN.min(left))).await;
        }
    }

    /// Until the outbox is empty; other nodes go on with what stays.
    async fn published(&self) {
        let mut ticks = interval(STEP);
        loop {
            ticks.tick().await;
            match self.store.backlog().await {
                Ok(backlog) if backlog.rows > 0 => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}
