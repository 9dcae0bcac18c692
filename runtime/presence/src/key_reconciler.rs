//! Keeps the keys in Redis as SQL says (PROTOCOL 4): renews TTLs, and restores lost keys.
//!
//! Invariant: the reconciler adds missing keys and overwrites none, so it may run beside joins, and on every node for
//! that node's own sessions. Keys that it wrote for a session that ended meanwhile are removed again.
use std::{collections::HashSet, error::Error, sync::Arc, time::Duration};

use rollcall_schema::{LessonId, NodeId, SessionId, Sid};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, sleep},
};
use tracing::{info, warn};

use crate::key_cleanup::KeyCleanup;
use rollcall_keys::{CALL_LIMIT, KeyEntry, KeyField, LessonKeys};
use rollcall_store::{Lease, LessonMembership, Store};

/// The time between two checks whether Redis was flushed or restarted.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// The time between the starts of two sweeps, if no loss is known. A sweep renews TTLs, which last 24 h and must be
/// renewed every 6 h. Nodes with neighbouring numbers sweep minutes apart, because they may have started together.
const SWEEP_EVERY: Duration = Duration::from_secs(3 * 3600);
const APART: (u64, Duration) = (16, Duration::from_secs(120));
/// How many sessions are written in one call. Joins wait until the call has ended.
const BATCH: usize = 250;
/// While no loss is known, the pause after a page is this many times as long as the page took. Ten nodes with 18,000
/// sessions each that swept at the same time as fast as they could kept Redis from answering in time.
const LEISURE: u32 = 3;

/// The task that reconciles the keys.
pub struct KeyReconciler {
    /// The store with the sessions.
    pub store: Arc<dyn Store>,
    /// The keys.
    pub kv: Arc<dyn LessonKeys>,
    /// Removes keys that were written too late.
    pub key_cleanup: KeyCleanup,
    /// This node's lease. Only its own sessions are written.
    pub lease: watch::Receiver<Lease>,
}

/// A sweep over all sessions, and how far it has come.
struct Sweep {
    after: SessionId,
    /// Whether keys are lost, so that the sweep makes no pauses.
    hurry: bool,
}

impl Sweep {
    const FIRST: Self = Self { after: SessionId(0), hurry: true };
}

impl KeyReconciler {
    /// Reconciles until the task is dropped.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = Some(Sweep::FIRST);
        let mut due = self.next();
        loop {
            ticks.tick().await;
            // Users' ids are names of keys, and none of them contains a colon.
            let marker = format!("rollcall:marker:{}", self.lease.borrow().node);
            match self.kv.probe(&marker).await {
                Ok(true) => {
                    if sweep.is_none() && Instant::now() >= due {
                        (sweep, due) = (Some(Sweep { after: SessionId(0), hurry: false }), self.next());
                    }
                }
                Ok(false) => {
                    info!("the key store is new, or has lost writes: writing what SQL knows");
                    self.key_cleanup.repeat();
                    (sweep, due) = (Some(Sweep::FIRST), self.next());
                }
                Err(error) => {
                    warn!(%error, "the keys wait");
                    continue;
                }
            }
            if let Some(begun) = sweep.take() {
                sweep = self.sweep(begun).await;
            }
        }
    }

    fn next(&self) -> Instant {
        let sooner = u32::try_from(self.lease.borrow().node.0.unsigned_abs() % APART.0).unwrap_or(0);
        Instant::now() + SWEEP_EVERY - sooner * APART.1
    }

    /// Sweeps on over the sessions of this node that are in a lesson, until the next probe is due. Returns the rest of
    /// the sweep.
    async fn sweep(&self, mut sweep: Sweep) -> Option<Sweep> {
        let node = self.lease.borrow().node;
        let begun = Instant::now();
        while begun.elapsed() < PROBE_EVERY {
            let page = Instant::now();
            match self.page(node, &sweep).await {
                Ok(last) => sweep.after = last?,
                Err(error) => {
                    warn!(%error, "the projection goes on later");
                    break;
                }
            }
            if !sweep.hurry {
                sleep(page.elapsed() * LEISURE).await;
            }
        }
        Some(sweep)
    }

    /// Writes a batch of sessions. Returns the last session of the batch.
    async fn page(
        &self,
        node: NodeId,
        &Sweep { after, hurry }: &Sweep,
    ) -> Result<Option<SessionId>, Box<dyn Error + Send + Sync>> {
        let placed = self.store.lesson_memberships(node, after, BATCH).await?;
        let Some(last) = placed.last().map(|last| last.session) else { return Ok(None) };
        let (placed, earlier): (Vec<_>, Vec<_>) = placed.into_iter().partition(|placed| placed.holds_field);
        if hurry {
            // If Redis has lost the join of the user's later connection, the field still names this one. The cleanup
            // sets it to the later one.
            earlier.into_iter().map(field).for_each(|field| self.key_cleanup.leave(field));
        }
        let entries: Vec<KeyEntry> = placed.iter().map(entry).collect();
        let repaired = self.kv.repair(&entries).await;
        match repaired {
            Ok(false) => return Ok(Some(last)),
            Ok(true) => {}
            // Redis may carry out a call without an answer until then.
            Err(_) => sleep(CALL_LIMIT).await,
        }
        let still = self.store.lesson_memberships(node, after, BATCH).await?;
        let still: HashSet<(Sid, &LessonId)> = still.iter().map(|placed| (placed.sid, &placed.lesson)).collect();
        for placed in placed {
            if !still.contains(&(placed.sid, &placed.lesson)) {
                self.key_cleanup.leave(field(placed));
            }
        }
        repaired?;
        Ok(Some(last))
    }
}

fn field(LessonMembership { lesson, user, sid, .. }: LessonMembership) -> KeyField {
    KeyField { lesson, user, sid }
}

fn entry(placed: &LessonMembership) -> KeyEntry {
    let LessonMembership { lesson, seats, sid, user, role, .. } = placed.clone();
    KeyEntry { lesson, seats, sid, user: Some((user, role)) }
}
