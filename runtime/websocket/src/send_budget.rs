//! Bytes that wait for slow readers; and who goes when they are too many.
//!
//! Invariant: every queued byte is counted from when it is queued until it has left or its connection is given up. Each
//! worker has an equal share of the node's limit and keeps it by itself, so nobody goes for what another worker's are slow
//! to take.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Application, Cause, SocketId, SocketIo, connection::ConnectionState, worker::Worker};
use rollcall_base::names;

/// One worker's count.
#[derive(Debug)]
pub(super) struct SendBudget {
    bytes: AtomicUsize,
    most: usize,
}

impl SendBudget {
    /// With this share.
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

    fn crowded(&self) -> bool {
        crowd([self])
    }
}

/// Whether it is nearly too much for these workers together: no time for new connections.
pub(super) fn crowd<'a>(workers: impl IntoIterator<Item = &'a SendBudget>) -> bool {
    let both = |(bytes, most), worker: &SendBudget| (bytes + worker.bytes.load(Relaxed), most + worker.most);
    let (bytes, most): (usize, usize) = workers.into_iter().fold((0, 0), both);
    bytes > most / 8 * 7
}

impl<A: Application> Worker<A> {
    /// While it is too much, ends those of this worker's connections that have taken nothing for longest.
    pub(super) fn shed(&mut self) {
        let sockets = &mut self.sockets;
        if !sockets.shared.in_flight.over(0) {
            return;
        }
        let slow = sockets.slab.iter().filter_map(|(slot, entry)| {
            let open = matches!(entry.connection.phase, ConnectionState::Open { .. });
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
