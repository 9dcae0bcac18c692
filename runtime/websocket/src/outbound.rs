//! What the kernel has not taken yet. A connection whose client reads has none of this.
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;

use super::{send_budget::SendBudget, transport::Transport};

/// Charged for each queued slice besides its bytes: the slice itself.
const SLICE: usize = size_of::<Bytes>();
/// Slices handed to the kernel at once.
const BATCH: usize = 32;

/// Slices in the order of the wire; between two turns of the worker only empty where the transport itself holds a rest.
#[derive(Debug)]
pub(super) struct Outbound {
    queue: VecDeque<Bytes>,
    charged: usize,
    /// What all of the worker are charged.
    in_flight: Arc<SendBudget>,
    /// A whole pong frame that waits for the queue to empty; a later one replaces it (RFC 6455, 5.5.3).
    pub(super) pong: Option<Bytes>,
    /// The tick of the last byte that the kernel took, or of the first that it did not.
    pub(super) stalled: u32,
}

impl Outbound {
    pub(super) fn new(now: u32, in_flight: Arc<SendBudget>) -> Self {
        Self { queue: VecDeque::new(), charged: 0, in_flight, pong: None, stalled: now }
    }

    /// Bytes that count against the limit.
    pub(super) fn charged(&self) -> usize {
        self.charged
    }

    /// What one more slice of so many bytes is charged.
    pub(super) fn charge(bytes: usize) -> usize {
        SLICE + bytes
    }

    pub(super) fn push(&mut self, slice: Bytes) {
        if !slice.is_empty() {
            self.charged += Self::charge(slice.len());
            self.in_flight.add(Self::charge(slice.len()));
            self.queue.push_back(slice);
        }
    }

    fn discharge(&mut self, bytes: usize) {
        self.charged -= bytes;
        self.in_flight.subtract(bytes);
    }

    /// Forgets all but the first slice, a part of which may have left.
    pub(super) fn cut(&mut self) {
        self.pong = None;
        self.queue.truncate(1);
        let left: usize = self.queue.iter().map(|slice| Self::charge(slice.len())).sum();
        self.discharge(self.charged - left);
        self.queue.shrink_to_fit();
    }

    /// Hands over what the kernel takes; whether nothing is left.
    pub(super) fn flush(&mut self, transport: &mut Transport, now: u32) -> io::Result<bool> {
        loop {
            if self.queue.is_empty() {
                match self.pong.take() {
                    Some(pong) => self.push(pong),
                    None => return transport.flush(),
                }
            }
            let mut slices = [IoSlice::new(&[]); BATCH];
            let count = self.queue.len().min(BATCH);
            for (slice, queued) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(queued);
            }
            let Some(taken) = transport.write_vectored(&slices[..count])? else { return Ok(false) };
            self.stalled = now;
            self.advance(taken);
        }
    }

    fn advance(&mut self, mut taken: usize) {
        while let Some(front) = self.queue.front_mut() {
            if taken < front.len() {
                // The rest keeps its place and its storage; only the bytes that went are no longer charged.
                *front = front.slice(taken..);
                self.discharge(taken);
                return;
            }
            let size = front.len();
            taken -= size;
            self.queue.pop_front();
            self.discharge(Self::charge(size));
        }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.in_flight.subtract(self.charged);
    }
}
