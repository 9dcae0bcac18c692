//! Removes the fields that sessions leave in Redis, as soon as Redis answers (PROTOCOL 4).
//!
//! Invariant: a field to remove is a row in SQL, written with the session's end, until Redis has removed it. So the row
//! survives this node and any outage, and no session's end waits for Redis. Only fields that no session's end covers
//! are in memory. Their number is bounded; those that do not fit are counted, and end with their TTL. After Redis has
//! removed a field, its row is kept in SQL for ten minutes more, and the removal is repeated if Redis has lost writes
//! since.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rollcall_schema::{NodeId, Sid};
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use crate::{Connections, failure::Failure};
use rollcall_base::{failpoint, names, tasks::Tasks};
use rollcall_keys::{KeyField, LessonKeys, StaleField};
use rollcall_store::{Lease, Store, StoreError};

/// The maximum number of fields that wait for SQL. Each costs some 100 bytes.
const QUEUE: usize = 100_000;
/// How many fields are removed in one round trip to Redis.
const BATCH: usize = 500;
/// How often the task looks for removals without a wake-up.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often old removals are deleted, and a page of held ones is checked.
const UPKEEP_EVERY: Duration = Duration::from_secs(10);
/// How often the task looks for fields of nodes that have no row.
const ADOPT_EVERY: Duration = Duration::from_secs(300);
/// How many removals are deleted or repeated in one statement.
const PAGE: usize = 5_000;
/// The maximum number of statements that delete removals in each [`UPKEEP_EVERY`].
const PAGES: usize = 50;
/// After a loss, the first and the last pause until the removals of dead nodes are repeated, too. Each pause is twice
/// the one before. Other nodes find a node dead only after its lease, which may have begun just before the loss.
const DEAD_AFTER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(64));
/// The pause between two attempts while SQL or Redis is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

enum Order {
    Remove(KeyField),
    /// A connection ended that did not have its session any more.
    Ended(Sid),
    /// The sender gets a message when no removal of this node is left.
    Finish(oneshot::Sender<()>),
}

/// The handle of the task. It is cheap to clone.
#[derive(Clone)]
pub struct KeyCleanup {
    orders: mpsc::Sender<Order>,
    look: Arc<Notify>,
    lost: Arc<AtomicBool>,
}

impl KeyCleanup {
    /// Starts the task that removes the fields. The caller must be inside a runtime.
    #[must_use]
    pub fn start(
        tasks: &Tasks,
        store: Arc<dyn Store>,
        kv: Arc<dyn LessonKeys>,
        lease: watch::Receiver<Lease>,
        connections: Arc<dyn Connections>,
    ) -> Self {
        let (orders, come) = mpsc::channel(QUEUE);
        let look = Arc::new(Notify::new());
        let lost = Arc::<AtomicBool>::default();
        let remover = KeyCleanupWorker {
            store,
            kv,
            lease,
            connections,
            come,
            look: Arc::clone(&look),
            lost: Arc::clone(&lost),
            dead: None,
            adopted: None,
            held_after: 0,
            expired: 0,
        };
        tasks.spawn("removals of keys", remover.run());
        Self { orders, look, lost }
    }

    /// Makes the task look for new fields in SQL. Must be called when a session has ended and its field is in SQL.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Repeats the removals of the last ten minutes. Must be called when Redis has or may have lost writes.
    pub fn repeat(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.look.notify_one();
    }

    /// Removes a field that no session's end covers, if it still names this connection.
    pub fn leave(&self, field: KeyField) {
        self.order(Order::Remove(field));
    }

    /// Removes the field that a connection's failed join left unsettled, unless it is the connection's own, which the
    /// guard removes.
    pub(crate) fn leave_unsettled(&self, unsettled: Option<KeyField>, own: Sid) {
        unsettled.filter(|field| field.sid != own).into_iter().for_each(|field| self.leave(field));
    }

    /// Records that a connection ended whose session was taken over. The field that the takeover noted may be removed
    /// now.
    pub fn ended(&self, sid: Sid) {
        self.order(Order::Ended(sid));
    }

    fn order(&self, order: Order) {
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.orders.try_send(order) {
            metrics::counter!(names::DROPPED, "reason" => "stale_fields_full").increment(1);
        }
    }

    /// Waits until all fields of this node are removed.
    pub async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        if self.orders.send(Order::Finish(done)).await.is_ok() {
            // An error is not possible, because the task lives as long as the process.
            let _ = finished.await;
        }
    }
}

struct KeyCleanupWorker {
    store: Arc<dyn Store>,
    kv: Arc<dyn LessonKeys>,
    lease: watch::Receiver<Lease>,
    connections: Arc<dyn Connections>,
    come: mpsc::Receiver<Order>,
    look: Arc<Notify>,
    lost: Arc<AtomicBool>,
    /// When the removals of nodes that died after the loss are repeated next, and the pause before this repetition.
    dead: Option<(Instant, Duration)>,
    /// When the task last looked for fields of nodes that have no row.
    adopted: Option<Instant>,
    /// The id of the last held removal that was checked.
    held_after: i64,
    /// The first minute that may have removals to delete.
    expired: i64,
}

impl KeyCleanupWorker {
    async fn run(mut self) {
        let mut orders = Vec::with_capacity(BATCH);
        let mut kept_up = Instant::now();
        loop {
            let patience = self.until_next(kept_up);
            tokio::select! {
                came = self.come.recv_many(&mut orders, BATCH) => if came == 0 { return },
                _ = timeout(patience, self.look.notified()) => {}
            }
            let (mut fields, mut ended, mut finishing) = (Vec::new(), Vec::new(), Vec::new());
            for order in orders.drain(..) {
                match order {
                    Order::Remove(field) => fields.push(field),
                    Order::Ended(sid) => ended.push(sid),
                    Order::Finish(done) => finishing.push(done),
                }
            }
            while let Err(error) = self.remove(&mut fields, &mut ended).await {
                warn!(%error, "the fields of ended sessions wait for their removal");
                sleep(RETRY_AFTER).await;
            }
            for done in finishing {
                // A caller that no longer waits needs no answer.
                let _ = done.send(());
            }
            if kept_up.elapsed() >= UPKEEP_EVERY {
                kept_up = Instant::now();
                if let Err(error) = self.upkeep().await {
                    warn!(%error, "old removals wait");
                }
            }
        }
    }

    /// Returns how long to wait for orders.
    fn until_next(&self, kept_up: Instant) -> Duration {
        let upkeep = UPKEEP_EVERY.saturating_sub(kept_up.elapsed());
        let dead = self.dead.map_or(LOOK_EVERY, |(due, _)| due.saturating_duration_since(Instant::now()));
        LOOK_EVERY.min(upkeep).min(dead)
    }

    /// Writes new fields and ends to SQL, then removes all fields that are due.
    async fn remove(&mut self, fields: &mut Vec<KeyField>, ended: &mut Vec<Sid>) -> Result<(), Failure> {
        let node = self.lease.borrow().node;
        if !fields.is_empty() || !ended.is_empty() {
            self.store.add_stale_fields(node, fields, ended).await?;
            fields.clear();
            ended.clear();
        }
        if self.lost.swap(false, Ordering::SeqCst) {
            self.repeat(node, true).await.inspect_err(|_| self.lost.store(true, Ordering::SeqCst))?;
            self.dead = Some((Instant::now() + DEAD_AFTER.0, DEAD_AFTER.0));
        } else if let Some((due, pause)) = self.dead
            && due <= Instant::now()
        {
            self.repeat(node, false).await?;
            let pause = 2 * pause;
            self.dead = (pause <= DEAD_AFTER.1).then(|| (Instant::now() + pause, pause));
        }
        loop {
            let stale_fields = self.store.stale_fields(node, BATCH).await?;
            if stale_fields.is_empty() {
                return Ok(());
            }
            // Redis may have hung with a dead node's join in a socket, and reads its sockets in no particular order.
            // Once it answers this ping, such a join has been carried out.
            self.kv.ping().await?;
            let batch: Vec<StaleField> = stale_fields.iter().map(|(_, field)| field.clone()).collect();
            failpoint::reach("stale fields read");
            self.kv.remove(&batch).await?;
            failpoint::reach("stale fields removed");
            self.store.forget_stale_fields(node, &stale_fields, self.kv.may_lose()).await?;
        }
    }

    /// Marks all kept removals as due. All are marked before the first one is repeated, so none is repeated twice.
    async fn repeat(&self, node: NodeId, own: bool) -> Result<(), StoreError> {
        let mut repeated = 0;
        loop {
            let page = self.store.repeat_removals(node, own, PAGE).await?;
            repeated += page;
            if page < PAGE {
                break;
            }
        }
        if repeated > 0 {
            info!(repeated, "removals are repeated, because Redis may have lost them");
        }
        Ok(())
    }

    /// Deletes old removals, and releases fields that are held for a connection that has ended. Its end may not have
    /// released them, because its connect was cut off or the queue was full.
    async fn upkeep(&mut self) -> Result<(), StoreError> {
        for _ in 0..PAGES {
            let (minute, more) = self.store.expire_removals(self.expired, PAGE).await?;
            self.expired = minute;
            if !more {
                break;
            }
        }
        let node = self.lease.borrow().node;
        if self.adopted.is_none_or(|at| at.elapsed() >= ADOPT_EVERY) {
            while self.store.adopt_stale_fields(node, PAGE).await? > 0 {
                self.look.notify_one();
            }
            self.adopted = Some(Instant::now());
        }
        let held = self.store.held_stale_fields(node, self.held_after, BATCH).await?;
        // After the last page the check begins again at the first.
        self.held_after = if held.len() < BATCH { 0 } else { held.last().map_or(0, |(id, _)| *id) };
        let sids: Vec<Sid> = held.into_iter().map(|(_, sid)| sid).collect();
        let ended = self.connections.ended(sids).await;
        if !ended.is_empty() {
            self.store.add_stale_fields(node, &[], &ended).await?;
            self.look.notify_one();
        }
        Ok(())
    }
}
