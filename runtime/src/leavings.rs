//! Fields in Redis that sessions leave behind: removed as soon as Redis answers (PROTOCOL 4).
//!
//! Invariant: what is to be removed is a row in SQL, written with the session's end, until Redis has carried it out; so
//! it outlives this node and any outage, and no session's end waits for Redis. In memory is only what no session's end
//! covers, bounded; what does not fit is counted, and ends with its TTL.
use std::{sync::Arc, time::Duration};

use rollcall_schema::Sid;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{
    failpoint,
    kv::{Field, Kv, KvError, Leaving},
    names,
    store::{Lease, Store, StoreError},
    tasks::Tasks,
};

/// Fields that wait for SQL; some 100 bytes each.
const QUEUE: usize = 100_000;
/// A round trip's.
const BATCH: usize = 500;
/// How soon what a dead node left, or its reaper, is found.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries while SQL or Redis is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

enum Order {
    Remove(Field),
    /// A connection that did not have its session any more.
    Ended(Sid),
    /// Answered when nothing of this node's is left.
    Finish(oneshot::Sender<()>),
}

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Leavings {
    orders: mpsc::Sender<Order>,
    look: Arc<Notify>,
}

impl Leavings {
    /// Starts the task that removes them, inside a runtime.
    #[must_use]
    pub fn start(tasks: &Tasks, store: Arc<dyn Store>, kv: Arc<dyn Kv>, lease: watch::Receiver<Lease>) -> Self {
        let (orders, come) = mpsc::channel(QUEUE);
        let look = Arc::new(Notify::new());
        tasks.spawn("removals of keys", Remover { store, kv, lease, come, look: Arc::clone(&look) }.run());
        Self { orders, look }
    }

    /// A session ended, and what it left is in SQL.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Removes what no session's end covers, if it still names this connection.
    pub fn leave(&self, field: Field) {
        self.order(Order::Remove(field));
    }

    /// A connection ended whose session was another's by then: what the takeover wrote down may be removed now.
    pub fn ended(&self, sid: Sid) {
        self.order(Order::Ended(sid));
    }

    fn order(&self, order: Order) {
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.orders.try_send(order) {
            metrics::counter!(names::DROPPED, "reason" => "leavings_full").increment(1);
        }
    }

    /// Waits until all of this node's are removed.
    pub async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        if self.orders.send(Order::Finish(done)).await.is_ok() {
            // The task lives as long as the process.
            let _ = finished.await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KvError),
}

struct Remover {
    store: Arc<dyn Store>,
    kv: Arc<dyn Kv>,
    lease: watch::Receiver<Lease>,
    come: mpsc::Receiver<Order>,
    look: Arc<Notify>,
}

impl Remover {
    async fn run(mut self) {
        let mut orders = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                came = self.come.recv_many(&mut orders, BATCH) => if came == 0 { return },
                _ = timeout(LOOK_EVERY, self.look.notified()) => {}
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
                warn!(%error, "fields of who left wait");
                sleep(RETRY_AFTER).await;
            }
            for done in finishing {
                // Who no longer waits needs no answer.
                let _ = done.send(());
            }
        }
    }

    /// Writes down what came, then removes all that there is.
    async fn remove(&self, fields: &mut Vec<Field>, ended: &mut Vec<Sid>) -> Result<(), Failure> {
        let node = self.lease.borrow().node;
        if !fields.is_empty() || !ended.is_empty() {
            self.store.leave(node, fields, ended).await?;
            fields.clear();
            ended.clear();
        }
        loop {
            let leavings = self.store.leavings(node, BATCH).await?;
            if leavings.is_empty() {
                return Ok(());
            }
            // What a dead node had sent is carried out before the answer: Redis may have hung with a join of its in a
            // socket, and takes up sockets in no particular order.
            self.kv.ping().await?;
            let batch: Vec<Leaving> = leavings.iter().map(|(_, leaving)| leaving.clone()).collect();
            failpoint::reach("leavings read");
            self.kv.leave(&batch).await?;
            failpoint::reach("leavings removed");
            self.store.forget(node, &leavings).await?;
        }
    }
}
