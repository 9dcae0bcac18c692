//! Keeps the keys in Redis what SQL says (PROTOCOL 4): renews TTLs, restores what was lost.
//!
//! Invariant: it adds what is missing and overwrites nothing, so it may run beside joins and on every node, each for its
//! own sessions.
use std::{sync::Arc, time::Duration};

use rollcall_schema::SessionId;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tracing::{info, warn};

use crate::{
    kv::{Entry, Kv},
    store::{Lease, Store},
};

/// How soon a flushed or restarted Redis is noticed.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How soon a single lost key is.
const SWEEP_EVERY: Duration = Duration::from_secs(45);
const BATCH: usize = 1_000;

/// What the projection needs.
pub struct Projection {
    /// What is so.
    pub store: Arc<dyn Store>,
    /// What shall say so.
    pub kv: Arc<dyn Kv>,
    /// Whose sessions.
    pub lease: watch::Receiver<Lease>,
}

impl Projection {
    /// Projects until the task is dropped.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        let mut whole = true;
        loop {
            ticks.tick().await;
            let marker = format!("rollcall_node_{}", self.lease.borrow().node);
            match self.kv.probe(&marker).await {
                Ok(there) if there && whole && swept.elapsed() < SWEEP_EVERY => continue,
                Ok(there) => {
                    if !there {
                        info!("the key store is new or empty: writing what SQL knows");
                    }
                    whole = self.sweep().await;
                    swept = Instant::now();
                }
                Err(error) => warn!(%error, "the keys wait"),
            }
        }
    }

    /// Every session of this node that is in a lesson. False where it has to be done again.
    async fn sweep(&self) -> bool {
        let node = self.lease.borrow().node;
        let mut after = SessionId(0);
        loop {
            let placed = match self.store.placed(node, after, BATCH).await {
                Ok(placed) => placed,
                Err(error) => {
                    warn!(%error, "the projection is begun again later");
                    return false;
                }
            };
            let Some(last) = placed.last() else { return true };
            after = last.session;
            let entries: Vec<Entry> = placed
                .into_iter()
                .map(|placed| Entry {
                    lesson: placed.lesson,
                    seats: placed.seats,
                    sid: placed.sid,
                    user: Some((placed.user, placed.role)),
                })
                .collect();
            if let Err(error) = self.kv.project(&entries).await {
                warn!(%error, "the projection is begun again later");
                return false;
            }
        }
    }
}
