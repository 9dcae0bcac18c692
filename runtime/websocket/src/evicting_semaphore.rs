//! A semaphore for connections that should send a request at once: an upgrade, or an operator's request.
//!
//! Invariant: at most `max` slots are taken. When all are, a new connection evicts the oldest holder, once that is
//! older than `MIN_TENURE`. So clients that are slow, silent or do not read cannot starve a client that sends its
//! request at once. Many such clients wait for each other.
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use metrics::counter;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use rollcall_base::names;

/// How long a holder is safe from eviction.
const MIN_TENURE: Duration = Duration::from_secs(1);

/// A semaphore that evicts its oldest holder.
#[derive(Debug)]
pub struct EvictingSemaphore {
    max: usize,
    permits: Arc<Semaphore>,
    holders: Mutex<Holders>,
    /// The `reason` label under which evictions are counted in `dropped_total`.
    reason: &'static str,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    /// The holders that can still be evicted, in the order of their arrival. Dropping the sender evicts the holder.
    evictable: BTreeMap<u64, (Instant, oneshot::Sender<Infallible>)>,
}

impl EvictingSemaphore {
    /// Creates a semaphore of `max` slots. Evictions are counted as dropped for `reason`.
    pub fn new(max: usize, reason: &'static str) -> Arc<Self> {
        Arc::new(Self { max, permits: Arc::new(Semaphore::new(max)), holders: Mutex::default(), reason })
    }

    /// Takes a slot for a connection that has just arrived. If none is free, it evicts the oldest holder once that has
    /// had its slot for a second.
    pub async fn acquire(self: &Arc<Self>) -> Slot {
        let permit = loop {
            let free = Arc::clone(&self.permits).acquire_owned();
            let Some((number, since)) = self.oldest() else { break free.await };
            if let Ok(permit) = timeout_at(since + MIN_TENURE, free).await {
                break permit;
            }
            if self.holders.lock().evictable.remove(&number).is_some() {
                counter!(names::DROPPED, "reason" => self.reason).increment(1);
            }
        };
        let permit = permit.expect("the semaphore is never closed");
        let (evict, evicted) = oneshot::channel();
        let mut holders = self.holders.lock();
        let number = holders.next;
        holders.next += 1;
        holders.evictable.insert(number, (Instant::now(), evict));
        drop(holders);
        Slot { semaphore: Arc::clone(self), number, evicted, _permit: permit }
    }

    /// Returns whether fewer than half of the slots are free, so that holders should not keep theirs for later.
    pub fn is_crowded(&self) -> bool {
        self.permits.available_permits() * 2 < self.max
    }

    /// Returns the holder to evict next, and since when it has had its slot, or `None` while a slot is free or about to
    /// be free.
    fn oldest(&self) -> Option<(u64, Instant)> {
        let evictable = &self.holders.lock().evictable;
        let oldest = evictable.first_key_value().filter(|_| evictable.len() == self.max);
        oldest.map(|(number, (since, _))| (*number, *since))
    }
}

/// The slot of a connection. Dropping it frees the slot.
#[derive(Debug)]
pub struct Slot {
    semaphore: Arc<EvictingSemaphore>,
    number: u64,
    evicted: oneshot::Receiver<Infallible>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Runs `task` and returns its output, or `None` if the slot was evicted before. A holder whose task has completed
    /// is no longer evicted, and keeps its slot until it is dropped.
    pub async fn run_until_evicted<T>(&mut self, task: impl Future<Output = T>) -> Option<T> {
        let outcome = tokio::select! {
            biased;
            outcome = task => Some(outcome),
            _ = &mut self.evicted => None,
        };
        self.semaphore.holders.lock().evictable.remove(&self.number);
        outcome
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.semaphore.holders.lock().evictable.remove(&self.number);
    }
}
