//! Limits how many connections a pool uses at once: few, until callers have waited for one.
//!
//! A connection costs the server a process and a plan of each statement, and calls that wait for a connection become
//! one larger batch. So another connection is made only if that is not enough, and not many at once: if many nodes made
//! all their connections at the same moment, the server would have no time left for their statements.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// How many connections may be used at first. There are two, so that a connect need not wait for a join's commit.
const FIRST: usize = 2;
/// How long a caller waits for one of the allowed connections before one more may be allowed.
const WAIT_BEFORE_GROWTH: Duration = Duration::from_millis(50);
/// The least time between two connections that are allowed for that reason.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Allowed {
    count: usize,
    since: Option<Instant>,
}

/// The right to use connections.
#[derive(Clone, Debug)]
pub(super) struct Growth {
    permits: Arc<Semaphore>,
    allowed: Arc<Mutex<Allowed>>,
    waiting: Arc<AtomicUsize>,
    max: usize,
}

/// Counts a caller as waiting while this value lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Growth {
    pub(super) fn new(max: usize) -> Self {
        let count = FIRST.min(max);
        Self {
            permits: Arc::new(Semaphore::new(count)),
            allowed: Arc::new(Mutex::new(Allowed { count, since: None })),
            waiting: Arc::default(),
            max,
        }
    }

    /// Waits for the right to use a connection. The caller that has waited longest gets it first.
    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let permit = Arc::clone(&self.permits).acquire_owned();
        tokio::pin!(permit);
        loop {
            if let Ok(permit) = timeout(WAIT_BEFORE_GROWTH, &mut permit).await {
                return permit.expect("the semaphore is never closed");
            }
            self.grow();
        }
    }

    /// Returns how many callers wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn grow(&self) {
        let mut allowed = self.allowed.lock();
        if allowed.count < self.max && allowed.since.is_none_or(|since| since.elapsed() >= PAUSE) {
            *allowed = Allowed { count: allowed.count + 1, since: Some(Instant::now()) };
            self.permits.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_more_once_a_caller_has_waited() {
        let growth = Growth::new(FIRST + 2);
        let began = Instant::now();
        let first = growth.permit().await;
        let _rest: Vec<_> = futures_util::future::join_all((1..FIRST).map(|_| growth.permit())).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        let _one_more = growth.permit().await;
        assert_eq!(began.elapsed(), WAIT_BEFORE_GROWTH);
        let _another = growth.permit().await;
        assert!(began.elapsed() >= WAIT_BEFORE_GROWTH + PAUSE, "not many in a moment");
        assert!(timeout(10 * PAUSE, growth.permit()).await.is_err(), "no more than the pool has");
        assert_eq!(growth.waiting(), 0);
        drop(first);
        let _again = growth.permit().await;
    }
}
