//! Places for connections that want something at once: an upgrade, an operator's answer.
//!
//! Invariant: there are at most so many, and one more connection takes the place of the one that has been here longest:
//! however many dribble, say nothing or do not read, who says at once what it wants is heard.
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::names;

/// All of them.
#[derive(Debug)]
pub(crate) struct Places {
    permits: Arc<Semaphore>,
    order: Mutex<Order>,
    /// Why somebody was ended, for `dropped_total{reason}`.
    reason: &'static str,
}

#[derive(Debug, Default)]
struct Order {
    next: u64,
    /// Who can still be ended, by when they came: by dropping what is kept here.
    ends: BTreeMap<u64, oneshot::Sender<Infallible>>,
}

impl Places {
    /// So many; who is ended is counted as dropped for this reason.
    pub(crate) fn new(most: usize, reason: &'static str) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(most)), order: Mutex::default(), reason })
    }

    /// One for a connection that came just now; if there is none left, that of the first. It is waited for only where all
    /// others are no longer to be ended.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                if self.order().ends.pop_first().is_some() {
                    counter!(names::DROPPED, "reason" => self.reason).increment(1);
                }
                Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        let (end, ended) = oneshot::channel();
        let mut order = self.order();
        let number = order.next;
        order.next += 1;
        order.ends.insert(number, end);
        drop(order);
        Place { places: Arc::clone(self), number, ended, _permit: permit }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    ended: oneshot::Receiver<Infallible>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// What comes of it; `None` where somebody else needed the place before. Who has come so far is not to be ended any
    /// more, and has the place until it is dropped.
    pub(crate) async fn until_needed<T>(&mut self, of: impl Future<Output = T>) -> Option<T> {
        let outcome = tokio::select! {
            biased;
            outcome = of => Some(outcome),
            _ = &mut self.ended => None,
        };
        self.places.order().ends.remove(&self.number);
        outcome
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.order().ends.remove(&self.number);
    }
}
