//! Keeps the keys in Redis what SQL says (PROTOCOL 4): renews TTLs, restores what was lost.
//!
//! Invariant: it adds what is missing and overwrites nothing, so it may run beside joins and on every node, each for its
//! own sessions. What it wrote for a session that ended meanwhile is removed again.
use std::{collections::HashSet, error::Error, sync::Arc, time::Duration};

use rollcall_schema::{LessonId, NodeId, SessionId, Sid};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tracing::{info, warn};

use crate::{
    kv::{Entry, Field, Kv},
    leavings::Leavings,
    store::{Lease, Placed, Store},
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
    /// Removes what was written too late.
    pub leavings: Leavings,
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
            // No user's id has a colon, and users' ids are keys.
            let marker = format!("rollcall:marker:{}", self.lease.borrow().node);
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
            match self.page(node, after).await {
                Ok(Some(last)) => after = last,
                Ok(None) => return true,
                Err(error) => {
                    warn!(%error, "the projection is begun again later");
                    return false;
                }
            }
        }
    }

    /// Sessions above `after`, a batch of them; returns the last.
    async fn page(&self, node: NodeId, after: SessionId) -> Result<Option<SessionId>, Box<dyn Error + Send + Sync>> {
        let placed = self.store.placed(node, after, BATCH).await?;
        let Some(last) = placed.last().map(|last| last.session) else { return Ok(None) };
        let entries: Vec<Entry> = placed.iter().map(entry).collect();
        self.kv.project(&entries).await?;
        let still = self.store.placed(node, after, BATCH).await?;
        let still: HashSet<(Sid, &LessonId)> = still.iter().map(|placed| (placed.sid, &placed.lesson)).collect();
        for Placed { sid, user, lesson, .. } in placed {
            if !still.contains(&(sid, &lesson)) {
                self.leavings.leave(Field { lesson, user, sid });
            }
        }
        Ok(Some(last))
    }
}

fn entry(placed: &Placed) -> Entry {
    let Placed { lesson, seats, sid, user, role, .. } = placed.clone();
    Entry { lesson, seats, sid, user: Some((user, role)) }
}
