//! The bytes of one connection that the kernel has not taken yet. The queue exists only while the client is slow to
//! read.
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;

use crate::{send_budget::SendBudget, transport::Transport};

/// The bytes that each queued slice costs in addition to its content.
const SLICE: usize = size_of::<Bytes>();
/// The maximum number of slices that are given to the kernel in one call.
const BATCH: usize = 32;

/// The slices in the order in which they are sent. Between two iterations of the worker the queue is empty only if TLS
/// still holds a record.
#[derive(Debug)]
pub(crate) struct SendQueue {
    queue: VecDeque<Bytes>,
    charged: usize,
    /// The worker's budget, to which every slice is charged.
    budget: Arc<SendBudget>,
    /// A complete pong frame that waits until the queue is empty. A later pong replaces it (RFC 6455, 5.5.3).
    pub(crate) pong: Option<Bytes>,
    /// The tick at which the kernel last took a byte, or at which the queue was created.
    pub(crate) stalled_since: u32,
}

impl SendQueue {
    pub(crate) fn new(now: u32, budget: Arc<SendBudget>) -> Self {
        Self { queue: VecDeque::new(), charged: 0, budget, pong: None, stalled_since: now }
    }

    /// Returns the bytes that count against the limit.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// Returns the charge of one slice of `bytes` bytes.
    pub(crate) fn charge(bytes: usize) -> usize {
        SLICE + bytes
    }

    pub(crate) fn push(&mut self, slice: Bytes) {
        if !slice.is_empty() {
            self.charged += Self::charge(slice.len());
            self.budget.add(Self::charge(slice.len()));
            self.queue.push_back(slice);
        }
    }

    fn discharge(&mut self, bytes: usize) {
        self.charged -= bytes;
        self.budget.subtract(bytes);
    }

    /// Drops all slices except the first, of which a part may have been sent.
    pub(crate) fn cut(&mut self) {
        self.pong = None;
        self.queue.truncate(1);
        let left: usize = self.queue.iter().map(|slice| Self::charge(slice.len())).sum();
        self.discharge(self.charged - left);
        self.queue.shrink_to_fit();
    }

    /// Takes all bytes out as one buffer.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.discharge(self.charged);
        self.queue.drain(..).fold(Vec::new(), |mut all, slice| {
            all.extend_from_slice(&slice);
            all
        })
    }

    /// Takes all bytes out, slice by slice.
    pub(crate) fn take_slices(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.discharge(self.charged);
        self.queue.drain(..)
    }

    /// Gives bytes to the kernel until it takes no more. Returns true if none is left.
    pub(crate) fn flush(&mut self, transport: &mut Transport, now: u32) -> io::Result<bool> {
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
            self.stalled_since = now;
            self.advance(taken);
        }
    }

    fn advance(&mut self, mut taken: usize) {
        while let Some(front) = self.queue.front_mut() {
            if taken < front.len() {
                // The slice stays queued and charged. Only the charge for the sent bytes is returned.
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

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.budget.subtract(self.charged);
    }
}
