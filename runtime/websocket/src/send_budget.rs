//! Counts the bytes that wait for slow readers, for each worker.
//!
//! Invariant: each queued byte counts until it is sent or its connection is dropped. Each worker has an equal share of
//! the node's limit, so no connection is closed because clients of another worker do not read.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The count and the limit of one worker, in bytes.
#[derive(Debug)]
pub(crate) struct SendBudget {
    bytes: AtomicUsize,
    max: usize,
}

impl SendBudget {
    pub(crate) fn new(max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), max }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn subtract(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Returns whether the limit would be exceeded by `more` bytes.
    pub(crate) fn is_exceeded(&self, more: usize) -> bool {
        self.bytes.load(Relaxed).saturating_add(more) > self.max
    }
}

/// Returns whether these workers together use more than 7/8 of their limits.
pub(crate) fn near_limit<'a>(workers: impl IntoIterator<Item = &'a SendBudget>) -> bool {
    let add = |(bytes, max), worker: &SendBudget| (bytes + worker.bytes.load(Relaxed), max + worker.max);
    let (bytes, max): (usize, usize) = workers.into_iter().fold((0, 0), add);
    bytes > max / 8 * 7
}
