//! What passes from the collector of live events to their delivery: events as they came, or the word that some are
//! missing.
//!
//! Invariant: the events taken are those of one connection, complete, since the last [`Flow::resume`]; from a break on
//! nothing passes until the next.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use async_nats::Statistics;
use tokio::{sync::Notify, time::Instant};

use crate::bus::Incoming;

/// More than this is not kept: what lies in the stream can be fetched from there.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What an event costs beside its body.
const OVERHEAD: usize = 256;
/// How much is taken at a time.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 1024 * 1024;

pub(super) struct Flow {
    inner: Mutex<Inner>,
    bell: Notify,
    statistics: Arc<Statistics>,
}

struct Inner {
    intact: bool,
    generation: u64,
    /// With the time of its coming.
    events: VecDeque<(Instant, Incoming)>,
    bytes: usize,
}

/// What [`Flow::next`] finds.
pub(super) enum Next {
    Events(Vec<(Instant, Incoming)>),
    Broken,
    Nothing,
}

impl Flow {
    /// Of the connection that these are the statistics of. It starts intact.
    pub(super) fn new(statistics: Arc<Statistics>) -> Self {
        let inner = Inner { intact: true, generation: 0, events: VecDeque::new(), bytes: 0 };
        let flow = Self { inner: Mutex::new(inner), bell: Notify::new(), statistics };
        flow.resume();
        flow
    }

    /// The connection's number. The library counts it up before it passes on a message of a new connection, so whoever
    /// has such a message in hand sees the new number.
    pub(super) fn connection(&self) -> u64 {
        self.statistics.connects.load(Ordering::Relaxed)
    }

    /// From now on events pass again, as long as the connection is the one of this moment: its number.
    pub(super) fn resume(&self) -> u64 {
        let mut inner = self.lock();
        inner.intact = true;
        inner.generation = self.connection();
        inner.generation
    }

    /// Something was lost, or may have been.
    pub(super) fn break_off(&self) {
        self.lock().intact = false;
        self.bell.notify_one();
    }

    /// Passes events on. False where the flow is broken: they were thrown away.
    pub(super) fn push(&self, events: impl Iterator<Item = Incoming>) -> bool {
        let mut inner = self.lock();
        if inner.generation != self.connection() || inner.bytes > MAX_BYTES {
            inner.intact = false;
        }
        if inner.intact {
            let now = Instant::now();
            for event in events {
                inner.bytes += weight(&event);
                inner.events.push_back((now, event));
            }
        }
        let (intact, idle) = (inner.intact, inner.intact && inner.events.is_empty());
        drop(inner);
        if !idle {
            self.bell.notify_one();
        }
        intact
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
