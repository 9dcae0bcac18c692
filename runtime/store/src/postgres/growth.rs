//! Limits how many connections a pool uses at once. At first there are few. Another one is added when callers have
//! waited for a connection.
//!
//! A connection costs the server a process and a plan of each statement, and calls that wait for a connection become
//! one larger batch. So another connection is made only if the present ones are not enough, and one at a time: if many
//! nodes made all their connections at the same moment, the server would have no time left for their statements.
//!
//! Invariant: a lost connection takes its permit with it, and no permit is added while no call is answered. So every
//! node has few connections again after an outage or a failover, although all callers have waited.
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
pub(super) const FIRST: usize = 2;
/// How long a caller waits for one of the allowed connections before one more may be allowed.
const WAIT_BEFORE_GROWTH: Duration = Duration::from_millis(50);
/// The least time between two connections that are allowed for that reason.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Allowed {
    count: usize,
    /// When the count was last raised.
    since: Option<Instant>,
    /// Whether a call was answered after the count was last raised.
    answered: bool,
    /// How many of the permits in use are dropped when they come back.
    surplus: usize,
}

/// The right to use connections.
#[derive(Clone, Debug)]
pub(super) struct Growth {
    permits: Arc<Semaphore>,
    allowed: Arc<Mutex<Allowed>>,
    waiting: Arc<AtomicUsize>,
    max: usize,
}

/// The right to use one connection.
#[derive(Debug)]
pub(super) struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    growth: Growth,
}

impl Permit {
    /// Records that a call on the connection was answered.
    pub(super) fn answered(&self) {
        self.growth.allowed.lock().answered = true;
    }

    /// Records that the connection is lost.
    pub(super) fn lost(&self) {
        self.growth.lost(1);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut allowed = self.growth.allowed.lock();
        if allowed.surplus > 0 {
            allowed.surplus -= 1;
            self.permit.take().into_iter().for_each(OwnedSemaphorePermit::forget);
        }
    }
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
            allowed: Arc::new(Mutex::new(Allowed { count, since: None, answered: true, surplus: 0 })),
            waiting: Arc::default(),
            max,
        }
    }

    /// Waits for the right to use a connection. The caller that has waited longest gets it first.
    pub(super) async fn permit(&self) -> Permit {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let permit = Arc::clone(&self.permits).acquire_owned();
        tokio::pin!(permit);
        loop {
            if let Ok(permit) = timeout(WAIT_BEFORE_GROWTH, &mut permit).await {
                let permit = Some(permit.expect("the semaphore is never closed"));
                return Permit { permit, growth: self.clone() };
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
        let may = allowed.answered && allowed.count < self.max;
        if !may || allowed.since.is_some_and(|since| since.elapsed() < PAUSE) {
            return;
        }
        (allowed.count, allowed.since, allowed.answered) = (allowed.count + 1, Some(Instant::now()), false);
        match allowed.surplus {
            0 => self.permits.add_permits(1),
            _ => allowed.surplus -= 1,
        }
    }

    /// Records that this many connections are lost.
    pub(super) fn lost(&self, connections: usize) {
        let mut allowed = self.allowed.lock();
        let less = connections.min(allowed.count.saturating_sub(FIRST));
        allowed.count -= less;
        allowed.surplus += less - self.permits.forget_permits(less);
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
        let one_more = growth.permit().await;
        assert_eq!(began.elapsed(), WAIT_BEFORE_GROWTH);
        one_more.answered();
        let _another = growth.permit().await;
        assert!(began.elapsed() >= WAIT_BEFORE_GROWTH + PAUSE, "not many in a moment");
        assert!(timeout(10 * PAUSE, growth.permit()).await.is_err(), "no more than the pool has");
        assert_eq!(growth.waiting(), 0);
        drop(first);
        let _again = growth.permit().await;
    }

    /// Returns how many connections may be used now.
    async fn usable(growth: &Growth) -> usize {
        let mut held = Vec::new();
        while let Ok(permit) = timeout(Duration::ZERO, growth.permit()).await {
            held.push(permit);
        }
        held.len()
    }

    #[tokio::test(start_paused = true)]
    async fn lost_connections_take_their_rights_with_them() {
        let growth = Growth::new(FIRST + 3);
        let mut held = Vec::new();
        for _ in 0..FIRST + 3 {
            tokio::time::advance(PAUSE).await;
            held.push(growth.permit().await);
            held.iter().for_each(Permit::answered);
        }
        drop(held.pop());
        growth.lost(2);
        drop(held.pop());
        assert_eq!(usable(&growth).await, 0, "one that was free and one that was in use are gone");
        held.clear();
        assert_eq!(usable(&growth).await, FIRST + 1);
        growth.lost(9);
        assert_eq!(usable(&growth).await, FIRST, "never less than at first");
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_no_more_while_nothing_is_answered() {
        let growth = Growth::new(FIRST + 3);
        let held: Vec<_> = futures_util::future::join_all((0..FIRST).map(|_| growth.permit())).await;
        let _one = growth.permit().await;
        assert!(timeout(10 * PAUSE, growth.permit()).await.is_err());
        held[0].answered();
        let _another = growth.permit().await;
    }
}
