//! Events between the live connection and the feed writer, or the mark that some are missing.
//!
//! Invariant: the events that are taken are of one connection, and complete since the last [`LiveBuffer::resume`].
//! After a break no event passes until the next resume. A room may be added before the server knows its subscription.
//! Events that are stored after the room was added do not count as republished until the server has answered, or a
//! backfill has read them.
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::Incoming;

/// The buffer's limit in bytes. Events beyond it are dropped here, and read from the stream later.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The cost of an event beside its body, in bytes.
const OVERHEAD: usize = 256;
/// The maximum number of events that are taken at a time.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;

/// A server that runs for this long republishes what it has stored. Elapsed time alone does not prove that it ran: it
/// may have been stopped after storing an event and before republishing it. If there are three answers of the stream
/// this far apart, its server was stopped between two of them at most.
const MIN_ANSWER_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct LiveBuffer {
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    intact: bool,
    /// The events, each with its arrival time.
    events: VecDeque<(Instant, Incoming)>,
    bytes: usize,
    /// When the stream answered last, oldest first. The times are at least [`MIN_ANSWER_INTERVAL`] apart.
    answers: [Instant; 3],
    /// When rooms were added whose subscription the server has not answered yet. Each has a number of its own.
    pending: BTreeSet<(Instant, u64)>,
    last_pending: u64,
    /// When the first room was added whose answer no caller awaits any more. A backfill brings its events.
    unanswered: Option<Instant>,
}

/// A subscription that the server has not answered yet. If it is dropped without an answer, the buffer is marked as
/// broken. Otherwise other rooms' events would pass until the server answers, and a backfill starts after the last
/// event that passed.
pub(super) struct PendingSubscription<'a> {
    buffer: &'a LiveBuffer,
    key: (Instant, u64),
}

impl PendingSubscription<'_> {
    /// Records that the subscription is live.
    pub(super) fn answered(self) {
        self.buffer.inner.lock().pending.remove(&self.key);
    }
}

impl Drop for PendingSubscription<'_> {
    fn drop(&mut self) {
        let mut inner = self.buffer.inner.lock();
        if inner.pending.remove(&self.key) {
            let since = self.key.0;
            inner.unanswered = Some(inner.unanswered.map_or(since, |earlier| earlier.min(since)));
            inner.intact = false;
            drop(inner);
            self.buffer.changed.notify_one();
        }
    }
}

/// The result of [`LiveBuffer::next`].
pub(super) enum Next {
    Events(Vec<(Instant, Incoming)>),
    Broken,
    Nothing,
}

impl LiveBuffer {
    /// Creates an intact, empty buffer.
    pub(super) fn new() -> Self {
        let inner = Inner {
            intact: true,
            events: VecDeque::new(),
            bytes: 0,
            answers: [Instant::now(); 3],
            pending: BTreeSet::new(),
            last_pending: 0,
            unanswered: None,
        };
        Self { inner: Mutex::new(inner), changed: Notify::new() }
    }

    /// Records that a room is being added.
    pub(super) fn pend(&self) -> PendingSubscription<'_> {
        let mut inner = self.inner.lock();
        inner.last_pending += 1;
        let key = (Instant::now(), inner.last_pending);
        inner.pending.insert(key);
        PendingSubscription { buffer: self, key }
    }

    /// Records that a backfill is done that began after the last [`LiveBuffer::resume`].
    pub(super) fn backfilled(&self) {
        let mut inner = self.inner.lock();
        if inner.intact {
            inner.unanswered = None;
        }
    }

    /// Lets events pass again.
    pub(super) fn resume(&self) {
        self.inner.lock().intact = true;
    }

    /// Records that events were or may have been lost.
    pub(super) fn mark_broken(&self) {
        self.inner.lock().intact = false;
        self.changed.notify_one();
    }

    /// Drops all events, because the stream was replaced or put back. A backfill brings the new stream's events.
    pub(super) fn discard(&self) {
        let mut inner = self.inner.lock();
        inner.events.clear();
        (inner.bytes, inner.intact) = (0, false);
        drop(inner);
        self.changed.notify_one();
    }

    /// Wakes the caller of [`LiveBuffer::changed`].
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Records that the server that has the stream answered at this time.
    pub(super) fn answered(&self, at: Instant) {
        let mut inner = self.inner.lock();
        let [_, before, last] = inner.answers;
        if at.duration_since(last) >= MIN_ANSWER_INTERVAL {
            inner.answers = [before, last, at];
        }
    }

    /// Returns a time. Every event that was stored before an event that arrived until this time was republished, and
    /// needs no backfill.
    pub(super) fn republished(&self) -> Instant {
        let inner = self.inner.lock();
        let first = inner.pending.first().map(|(at, _)| *at);
        [first, inner.unanswered].into_iter().flatten().fold(inner.answers[0], Instant::min)
    }

    /// Returns whether no subscription waits for its answer or for a backfill.
    pub(super) fn is_certain(&self) -> bool {
        let inner = self.inner.lock();
        inner.intact && inner.pending.is_empty() && inner.unanswered.is_none()
    }

    /// Adds events that arrived at this time. A broken buffer drops them.
    pub(super) fn push(&self, at: Instant, events: Vec<Incoming>) {
        if events.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.bytes > MAX_BYTES {
            inner.intact = false;
        }
        if inner.intact {
            for event in events {
                inner.bytes += weight(&event);
                inner.events.push_back((at, event));
            }
        }
        drop(inner);
        self.changed.notify_one();
    }

    pub(super) fn next(&self) -> Next {
        let mut inner = self.inner.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && batch.len() < BATCH_EVENTS {
            let Some(event) = inner.events.pop_front() else { break };
            bytes += weight(&event.1);
            batch.push(event);
        }
        inner.bytes -= bytes;
        match (batch.is_empty(), inner.intact) {
            (false, _) => Next::Events(batch),
            (true, false) => Next::Broken,
            (true, true) => Next::Nothing,
        }
    }

    /// Returns when [`LiveBuffer::next`] may have something new.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn weight(event: &Incoming) -> usize {
    OVERHEAD + event.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stood_is_given_time_to_republish() {
        let buffer = LiveBuffer::new();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        [1_000, 2_000, 3_000].into_iter().for_each(|ms| buffer.answered(at(ms)));
        assert_eq!(buffer.republished(), at(1_000));
        // The server is stopped at 3,500, and later answers three questions at once.
        [9_000, 9_001, 9_002].into_iter().for_each(|ms| buffer.answered(at(ms)));
        assert_eq!(buffer.republished(), at(2_000));
        [10_000, 11_000].into_iter().for_each(|ms| buffer.answered(at(ms)));
        assert_eq!(buffer.republished(), at(9_000));
    }

    #[test]
    fn what_may_have_come_before_a_subscription_waits_for_its_answer_or_a_backfill() {
        let buffer = LiveBuffer::new();
        let later = |ms: u64| Instant::now() + Duration::from_millis(ms);
        let before = Instant::now();
        let (answered, forgotten) = (buffer.pend(), buffer.pend());
        [1_000, 2_000, 3_000].into_iter().for_each(|ms| buffer.answered(later(ms)));
        let since = buffer.republished();
        assert!(before <= since && since <= Instant::now(), "no later than the first pending");
        answered.answered();
        assert!(matches!(buffer.next(), Next::Nothing));
        drop(forgotten);
        assert!(matches!(buffer.next(), Next::Broken));
        buffer.resume();
        assert!(since <= buffer.republished() && buffer.republished() <= Instant::now(), "not yet");
        // The buffer breaks during the backfill.
        drop(buffer.pend());
        buffer.backfilled();
        assert!(!buffer.is_certain() && buffer.republished() <= Instant::now());
        buffer.resume();
        buffer.backfilled();
        assert!(buffer.is_certain() && buffer.republished() > Instant::now());
    }
}
