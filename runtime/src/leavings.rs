//! Fields in Redis that sessions leave behind: removed as soon as Redis answers (PROTOCOL 4).
//!
//! Invariant: a session's end in SQL never waits for Redis. Bounded; what does not fit is counted, and ends with its TTL.
use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use rollcall_schema::Sid;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    watch,
};
use tracing::warn;

use crate::{
    kv::{Field, Kv},
    names,
};

/// Fields that wait; some 100 bytes each.
const QUEUE: usize = 100_000;
/// Round trips at once.
const AT_ONCE: usize = 64;
/// Between two tries while Redis is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

type Leaving = (Field, Option<Sid>);

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Leavings {
    queue: mpsc::Sender<Leaving>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Leavings {
    /// Starts the task that removes them, inside a runtime.
    #[must_use]
    pub fn start(kv: Arc<dyn Kv>) -> Self {
        let (queue, leavings) = mpsc::channel(QUEUE);
        let this = Self { queue, waiting: Arc::default() };
        tokio::spawn(remove(kv, leavings, Arc::clone(&this.waiting)));
        this
    }

    /// Removes a field if it still names this connection; `heir` takes its place then.
    pub fn leave(&self, field: Field, heir: Option<Sid>) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.queue.try_send((field, heir)) {
            self.waiting.send_modify(|waiting| *waiting -= 1);
            metrics::counter!(names::DROPPED, "reason" => "leavings_full").increment(1);
        }
    }

    /// Waits until all are removed.
    pub async fn finish(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender is ours.
        let _ = waiting.wait_for(|waiting| *waiting == 0).await;
    }
}

async fn remove(kv: Arc<dyn Kv>, mut leavings: mpsc::Receiver<Leaving>, waiting: Arc<watch::Sender<usize>>) {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while leavings.recv_many(&mut batch, AT_ONCE).await > 0 {
        while !batch.is_empty() {
            let results = join_all(batch.iter().map(|(field, heir)| kv.leave(field, *heir))).await;
            let (all, mut results) = (batch.len(), results.into_iter());
            batch.retain(|_| results.next().is_some_and(|result| result.is_err()));
            waiting.send_modify(|waiting| *waiting -= all - batch.len());
            if !batch.is_empty() {
                warn!(fields = batch.len(), "fields of who left wait for the key store");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}
