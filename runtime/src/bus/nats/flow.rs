//! What passes from the live connection to the delivery: events as they came, or the word that some are
//! missing.
//!
//! Invariant: the events taken are those of one connection, complete, since the last [`Flow::resume`]; from a break on
//! nothing passes until the next.
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::bus::Incoming;

/// More than this is not kept: what lies in the stream can be fetched from there.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What an event costs beside its body.
const OVERHEAD: usize = 256;
/// How much is taken at a time.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;

/// A server that runs for so long republishes what it has stored. The clock does not say that it ran: a server may stand,
/// with an event stored and not yet republished. Of three answers to pings this far apart, it stood between two at most.
const APART: Duration = Duration::from_millis(500);

pub(super) struct Flow {
    inner: Mutex<Inner>,
    bell: Notify,
}

struct Inner {
    intact: bool,
    /// With the time of its coming.
    events: VecDeque<(Instant, Incoming)>,
    bytes: usize,
    /// When the server answered, [`APART`]: the oldest first.
    answers: [Instant; 3],
}

/// What [`Flow::next`] finds.
pub(super) enum Next {
    Events(Vec<(Instant, Incoming)>),
    Broken,
    Nothing,
}

impl Flow {
    /// It starts intact.
    pub(super) fn new() -> Self {
        let inner = Inner { intact: true, events: VecDeque::new(), bytes: 0, answers: [Instant::now(); 3] };
        Self { inner: Mutex::new(inner), bell: Notify::new() }
    }

    /// From now on events pass again.
    pub(super) fn resume(&self) {
        self.lock().intact = true;
    }

    /// Something was lost, or may have been.
    pub(super) fn break_off(&self) {
        self.lock().intact = false;
        self.bell.notify_one();
    }

    /// The server has answered a ping.
    pub(super) fn answered(&self, at: Instant) {
        let mut inner = self.lock();
        let [_, before, last] = inner.answers;
        if at.duration_since(last) >= APART {
            inner.answers = [before, last, at];
        }
    }

    /// What was stored before anything that came until then has been republished.
    pub(super) fn republished(&self) -> Instant {
        self.lock().answers[0]
    }

    /// Passes on events that came at this time. Where the flow is broken they are thrown away.
    pub(super) fn push(&self, at: Instant, events: Vec<Incoming>) {
        if events.is_empty() {
            return;
        }
        let mut inner = self.lock();
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
        self.bell.notify_one();
    }

    pub(super) fn next(&self) -> Next {
        let mut inner = self.lock();
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

    /// Returns when [`Flow::next`] may have something.
    pub(super) async fn changed(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
        let flow = Flow::new();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        [1_000, 2_000, 3_000].into_iter().for_each(|ms| flow.answered(at(ms)));
        assert_eq!(flow.republished(), at(1_000));
        // It stands from 3,500 on, and then answers three pings at once.
        [9_000, 9_001, 9_002].into_iter().for_each(|ms| flow.answered(at(ms)));
        assert_eq!(flow.republished(), at(2_000));
        [10_000, 11_000].into_iter().for_each(|ms| flow.answered(at(ms)));
        assert_eq!(flow.republished(), at(9_000));
    }
}
