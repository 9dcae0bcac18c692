//! EvictingSemaphore for connections that want something at once: an upgrade, an operator's answer.
//!
//! Invariant: there are at most so many, and one more connection takes the place of the one that has been here longest,
//! but for the time that anybody's request takes: however many dribble, say nothing or do not read, who says at once what
//! it wants is heard; and a crowd of those who do so waits for its turn.
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::counter;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use rollcall_base::names;

/// For so long a place is nobody else's.
const STAY: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug)]
pub struct EvictingSemaphore {
    most: usize,
    permits: Arc<Semaphore>,
    order: Mutex<Order>,
    /// Why somebody was ended, for `dropped_total{reason}`.
    reason: &'static str,
}

#[derive(Debug, Default)]
struct Order {
    next: u64,
    /// Who can still be ended, by when they came: by dropping what is kept here.
    ends: BTreeMap<u64, (Instant, oneshot::Sender<Infallible>)>,
}

impl EvictingSemaphore {
    /// So many; who is ended is counted as dropped for this reason.
    pub fn new(most: usize, reason: &'static str) -> Arc<Self> {
        Arc::new(Self { most, permits: Arc::new(Semaphore::new(most)), order: Mutex::default(), reason })
    }

    /// One for a connection that came just now; if none becomes free, that of the first, once it has been here for
    /// [`STAY`].
    pub async fn take(self: &Arc<Self>) -> Slot {
        let permit = loop {
            let free = Arc::clone(&self.permits).acquire_owned();
            let Some((number, since)) = self.first() else { break free.await };
            if let Ok(permit) = timeout_at(since + STAY, free).await {
                break permit;
            }
            if self.order().ends.remove(&number).is_some() {
                counter!(names::DROPPED, "reason" => self.reason).increment(1);
            }
        };
        let permit = permit.expect("the semaphore is never closed");
        let (end, ended) = oneshot::channel();
        let mut order = self.order();
        let number = order.next;
        order.next += 1;
        order.ends.insert(number, (Instant::now(), end));
        drop(order);
        Slot { places: Arc::clone(self), number, ended, _permit: permit }
    }

    /// Who goes next, and since when it is here; nobody while a place is about to become free.
    fn first(&self) -> Option<(u64, Instant)> {
        let ends = &self.order().ends;
        ends.first_key_value().filter(|_| ends.len() == self.most).map(|(number, (since, _))| (*number, *since))
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    places: Arc<EvictingSemaphore>,
    number: u64,
    ended: oneshot::Receiver<Infallible>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// What comes of it; `None` where somebody else needed the place before. Who has come so far is not to be ended any
    /// more, and has the place until it is dropped.
    pub async fn until_needed<T>(&mut self, of: impl Future<Output = T>) -> Option<T> {
        let outcome = tokio::select! {
            biased;
            outcome = of => Some(outcome),
            _ = &mut self.ended => None,
        };
        self.places.order().ends.remove(&self.number);
        outcome
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.places.order().ends.remove(&self.number);
    }
}
