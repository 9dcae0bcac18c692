//! Counts the connections of the node.
//!
//! Invariant: a connection counts once, from its reservation (if it has one) until it has ended. The worker that takes
//! it over continues the reservation's count.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The count of all connections of the node. It is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    /// Returns the number of connections.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more connection, until a worker counts it, or the reservation is dropped.
    #[must_use]
    pub fn reserve(&self) -> ReservedConnection {
        self.0.fetch_add(1, Ordering::Relaxed);
        Arc::new(Reservation(Some(self.clone())))
    }

    fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection on its way to a worker. It is in the extensions of the upgraded head, whose values must be
/// cloneable.
pub type ReservedConnection = Arc<Reservation>;

/// The counted connection (see [`ReservedConnection`]).
#[derive(Debug)]
pub struct Reservation(Option<ConnectionCount>);

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(count) = self.0.take() {
            count.remove();
        }
    }
}

/// The count of one worker's connections.
#[derive(Debug)]
pub(crate) struct WorkerCount {
    own: AtomicUsize,
    node: ConnectionCount,
}

impl WorkerCount {
    pub(crate) fn new(node: &ConnectionCount) -> Self {
        Self { own: AtomicUsize::new(0), node: node.clone() }
    }

    /// Returns the number of connections that the worker has or is about to get.
    pub(crate) fn get(&self) -> usize {
        self.own.load(Ordering::Relaxed)
    }

    /// Counts a connection that the worker is about to get.
    pub(crate) fn add(&self, reserved: Option<ReservedConnection>) {
        self.own.fetch_add(1, Ordering::Relaxed);
        if let Some(mut reserved) = reserved.and_then(Arc::into_inner) {
            reserved.0 = None;
        } else {
            self.node.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a connection that has ended.
    pub(crate) fn remove(&self) {
        self.own.fetch_sub(1, Ordering::Relaxed);
        self.node.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_once_whether_it_was_reserved_or_not() {
        let node = ConnectionCount::default();
        let worker = WorkerCount::new(&node);
        let counts = || (node.get(), worker.get());
        let (handed_over, given_up) = (node.reserve(), node.reserve());
        assert_eq!(counts(), (2, 0));
        drop(given_up);
        assert_eq!(counts(), (1, 0));
        worker.add(Some(handed_over));
        assert_eq!(counts(), (1, 1));
        worker.add(None);
        assert_eq!(counts(), (2, 2));
        worker.remove();
        worker.remove();
        assert_eq!(counts(), (0, 0));
    }
}
