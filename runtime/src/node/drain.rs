//! The drain of a node (PROTOCOL 2, "Drain, make before break"): clients are told, and are served until they have
//! connected to another node or the time is over. Then their connections are closed, and the remaining ends of sessions
//! are written.
//!
//! Invariant: a drain ends at its deadline, even if a backend hangs. Other nodes end the sessions whose ends were not
//! written by then. A drain ends as soon as there is no connection and no end to write.
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
use rollcall_presence::{Undos, key_cleanup::KeyCleanup};
use rollcall_store::{Lease, Store};
use rollcall_websocket::Workers;

/// The time between two groups of clients that are told, or whose connections are closed.
const STEP: Duration = Duration::from_millis(50);

/// The part of the deadline that is kept for the end of the process after the drain.
const EXIT: Duration = Duration::from_millis(500);

/// The parts that a drain uses.
pub struct Drain {
    /// The deadline and the spread.
    pub presence: PresenceConfig,
    /// The workers, which count the connections.
    pub workers: Workers<WorkerCommand>,
    /// The workers' inboxes.
    pub mailboxes: Mailboxes,
    /// Ends the sessions.
    pub disconnects: DisconnectQueue,
    /// Undoes requests that were cut off.
    pub undos: Undos,
    /// Removes the keys of ended sessions.
    pub key_cleanup: KeyCleanup,
    /// The store to which the ends of sessions are written.
    pub store: Arc<dyn Store>,
    /// The node's lease, which is released at the end.
    pub lease: watch::Receiver<Lease>,
    /// The number of living nodes. If there is no other node, clients cannot move.
    pub nodes: watch::Receiver<u32>,
}

/// The latest end of each part of a drain.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    /// The time until which connections are served.
    served: Instant,
    /// The time until which connections are closed.
    closed: Instant,
    /// The time until which sessions wait for a takeover.
    kept: Instant,
    /// The time until which the ends of sessions are written.
    ended: Instant,
    /// The time until which the keys of ended sessions are removed.
    cleaned: Instant,
    /// The time until which the events of ended sessions are published.
    published: Instant,
    /// The time by which the lease must be released.
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
    /// Runs the drain.
    pub async fn run(self) {
        let start = Instant::now();
        let schedule = Schedule::new(start, self.presence.drain_deadline);
        info!(connections = self.workers.connections(), "draining");
        let _ = timeout_at(schedule.ended, self.move_clients(start, schedule)).await;
        if timeout_at(schedule.ended, self.disconnects.finish()).await.is_err() {
            warn!("some sessions have not ended in time: other nodes or the next start end them");
        }
        let _ = timeout_at(schedule.ended, self.undos.finish()).await;
        let _ = timeout_at(schedule.cleaned, self.key_cleanup.finish()).await;
        let _ = timeout_at(schedule.published, self.published()).await;
        let lease = *self.lease.borrow();
        match timeout_at(schedule.over, self.store.release_lease(lease)).await {
            Ok(Ok(())) => info!("drained"),
            Ok(Err(error)) => warn!(%error, "the lease was not released and expires by itself"),
            Err(_) => warn!("the lease was not released before the deadline and expires by itself"),
        }
    }

    /// Moves every client to another node if there is one, and closes the connections.
    async fn move_clients(&self, start: Instant, schedule: Schedule) {
        let spread = self.presence.drain_spread;
        if !self.has_others() {
            self.disconnects.drain(start);
            return self.close_all(spread, RECONNECT_WITHIN).await;
        }
        self.disconnects.drain(schedule.kept);
        // A client that waits before it connects to another node must have time left to connect.
        let within = RECONNECT_WITHIN.min((schedule.kept - schedule.closed) / 2);
        self.announce(schedule.served, within).await;
        if self.has_others() {
            self.close_all(schedule.closed.saturating_duration_since(Instant::now()), within).await;
        } else {
            self.disconnects.drain(Instant::now());
            self.close_all(spread.min(schedule.closed.saturating_duration_since(Instant::now())), within).await;
        }
    }

    /// Tells every client, spread evenly. Then waits until all clients have moved, at most until `until`, and only
    /// while there is another node.
    async fn announce(&self, until: Instant, within: Duration) {
        let (mut steps, share) = self.pace(self.presence.drain_spread);
        let mut ticks = interval(STEP);
        while self.workers.connections() > 0 && self.has_others() && Instant::now() < until {
            ticks.tick().await;
            if let Some(left) = steps.checked_sub(1) {
                steps = left;
                // Workers have different numbers of connections, so the last step tells all remaining clients.
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

    /// Returns the number of steps, and how many connections of a worker belong to each step.
    fn pace(&self, spread: Duration) -> (usize, usize) {
        let steps = usize::try_from(spread.as_millis().div_euclid(STEP.as_millis())).unwrap_or(usize::MAX).max(1);
        let share = self.workers.connections().div_ceil(steps).max(1);
        (steps, share.div_ceil(self.mailboxes.len()))
    }

    fn has_others(&self) -> bool {
        *self.nodes.borrow() > 1
    }

    /// Waits until the outbox is empty. Other nodes publish the events that remain.
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
