//! The end of a node (PROTOCOL 2, "Drain, make before break"): clients are told, served until they have entered elsewhere
//! or it is late, and closed; then what is left is written down.
//!
//! Invariant: it is over at the drain deadline, whatever hangs; what was not written by then is free for other nodes. It is
//! over as soon as no connection and nothing to write is left.
use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, interval, timeout_at},
};
use tracing::{info, warn};

use crate::{
    config::PresenceConfig,
    gateway::{Mailboxes, RECONNECT_WITHIN, WorkerCommand, disconnect_queue::DisconnectQueue},
};
use rollcall_presence::key_cleanup::KeyCleanup;
use rollcall_store::{Lease, Store};
use rollcall_websocket::Workers;

/// Between two groups of clients that are told, or closed.
const STEP: Duration = Duration::from_millis(50);

/// For what follows the drain, and the end of the process.
const EXIT: Duration = Duration::from_millis(500);

/// What a drain needs.
pub struct Drain {
    /// How long, and at which pace.
    pub presence: PresenceConfig,
    /// Who is told.
    pub workers: Workers<WorkerCommand>,
    /// How.
    pub mailboxes: Mailboxes,
    /// Where their sessions go.
    pub departures: DisconnectQueue,
    /// Where their keys go.
    pub leavings: KeyCleanup,
    /// Where they are written.
    pub store: Arc<dyn Store>,
    /// Given back at the end.
    pub lease: watch::Receiver<Lease>,
    /// How many nodes live: without another one there is nowhere to enter.
    pub nodes: watch::Receiver<u32>,
}

/// When each part of a drain ends at the latest.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    /// Connections are served until then,
    served: Instant,
    /// closed until then,
    closed: Instant,
    /// and waited for elsewhere until then.
    kept: Instant,
    /// Ends of sessions are written until then,
    ended: Instant,
    /// their keys removed,
    cleaned: Instant,
    /// their events published,
    published: Instant,
    /// and the lease given back.
    over: Instant,
}

impl Schedule {
    fn new(start: Instant, deadline: Duration) -> Self {
        let serving = deadline.mul_f64(0.75);
        let rest = deadline - EXIT.min(deadline / 8) - serving;
        let after = |share| start + serving + rest.mul_f64(share);
        Self {
            served: after(0.0),
            closed: after(0.35),
            kept: after(0.7),
            ended: after(0.9),
            cleaned: after(0.93),
            published: after(0.97),
            over: after(1.0),
        }
    }
}

impl Drain {
    /// Drains.
    pub async fn run(self) {
        let start = Instant::now();
        let schedule = Schedule::new(start, self.presence.drain_deadline);
        info!(connections = self.workers.connections(), "draining");
        let _ = timeout_at(schedule.ended, self.send_away(start, schedule)).await;
        if timeout_at(schedule.ended, self.departures.finish()).await.is_err() {
            warn!("sessions are left for other nodes, or for the next start");
        }
        let _ = timeout_at(schedule.cleaned, self.leavings.finish()).await;
        let _ = timeout_at(schedule.published, self.published()).await;
        let lease = *self.lease.borrow();
        match timeout_at(schedule.over, self.store.release_lease(lease)).await {
            Ok(Ok(())) => info!("drained"),
            Ok(Err(error)) => warn!(%error, "the lease runs out by itself"),
            Err(_) => warn!("the deadline is over"),
        }
    }

    /// Every client: to another node, where there is one.
    async fn send_away(&self, start: Instant, schedule: Schedule) {
        let spread = self.presence.drain_spread;
        if !self.has_others() {
            self.departures.drain(start);
            return self.close_all(spread, RECONNECT_WITHIN).await;
        }
        self.departures.drain(schedule.kept);
        // What a client waits before it enters elsewhere must leave time for entering.
        let within = RECONNECT_WITHIN.min((schedule.kept - schedule.closed) / 2);
        self.announce(schedule.served, within).await;
        if self.has_others() {
            self.close_all(schedule.closed.saturating_duration_since(Instant::now()), within).await;
        } else {
            self.departures.drain(Instant::now());
            self.close_all(spread.min(schedule.closed.saturating_duration_since(Instant::now())), within).await;
        }
    }

    /// Tells every client, spread evenly, and waits until all have entered elsewhere, or until then, or until there is no
    /// other node any more.
    async fn announce(&self, until: Instant, within: Duration) {
        let (mut steps, share) = self.pace(self.presence.drain_spread);
        let mut ticks = interval(STEP);
        while self.workers.connections() > 0 && self.has_others() && Instant::now() < until {
            ticks.tick().await;
            if let Some(left) = steps.checked_sub(1) {
                steps = left;
                // Workers have unequal numbers: the last step tells the rest.
                let count = if left == 0 { usize::MAX } else { share };
                self.mailboxes.broadcast(|| WorkerCommand::AnnounceDrain(count, within)).await;
            }
        }
    }

    /// Closes every connection, spread evenly.
    async fn close_all(&self, spread: Duration, within: Duration) {
        let (_, share) = self.pace(spread);
        let mut ticks = interval(STEP);
        while self.workers.connections() > 0 {
            ticks.tick().await;
            self.mailboxes.broadcast(|| WorkerCommand::CloseSome(share, within)).await;
        }
    }

    /// In how many steps, and how many connections of a worker in each.
    fn pace(&self, spread: Duration) -> (usize, usize) {
        let steps = usize::try_from(spread.as_millis().div_euclid(STEP.as_millis())).unwrap_or(usize::MAX).max(1);
        let share = self.workers.connections().div_ceil(steps).max(1);
        (steps, share.div_ceil(self.mailboxes.len()))
    }

    fn has_others(&self) -> bool {
        *self.nodes.borrow() > 1
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
