//! Bytes that wait for slow readers, of all workers together; and who goes when they are too many.
//!
//! Invariant: every queued byte is counted from when it is queued until it has left or its connection is given up.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Application, Cause, SocketId, SocketIo, connection::Phase, worker::Worker};
use crate::names;

/// The count.
#[derive(Debug)]
pub(super) struct InFlight {
    bytes: AtomicUsize,
    most: usize,
}

impl InFlight {
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), most }
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Whether it is too much, with `more`.
    pub(super) fn over(&self, more: usize) -> bool {
        self.bytes.load(Relaxed).saturating_add(more) > self.most
    }

    /// Whether it is nearly too much: no time for new connections.
    pub(super) fn crowded(&self) -> bool {
        self.bytes.load(Relaxed) > self.target()
    }

    fn target(&self) -> usize {
        self.most / 8 * 7
    }
}

impl<A: Application> Worker<A> {
    /// While it is too much, ends those of this worker's connections that have taken nothing for longest.
    pub(super) fn shed(&mut self) {
        let sockets = &mut self.sockets;
        if !sockets.shared.in_flight.over(0) {
            return;
        }
        let slow = sockets.slab.iter().filter_map(|(slot, entry)| {
            let open = matches!(entry.connection.phase, Phase::Open { .. });
            let outbound = entry.connection.outbound.as_ref().filter(|_| open)?;
            Some((outbound.stalled, std::cmp::Reverse(outbound.charged()), slot))
        });
        let mut slow: Vec<_> = slow.collect();
        slow.sort_unstable();
        for (_, _, slot) in slow {
            if !sockets.shared.in_flight.crowded() {
                break;
            }
            let connection = &mut sockets.slab[slot].connection;
            let id = SocketId::new(sockets.shared.worker, slot, connection.generation);
            SocketIo { connection, shared: &mut sockets.shared, id }.shed();
        }
    }
}

impl SocketIo<'_> {
    /// Ends the connection as one that is too slow, and gives back what waits for it.
    pub(super) fn shed(&mut self) {
        metrics::counter!(names::DROPPED, "reason" => "in_flight").increment(1);
        self.condemn(Cause::SlowConsumer);
        if let Some(outbound) = &mut self.connection.outbound {
            outbound.cut();
        }
    }
}
