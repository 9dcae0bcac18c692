//! What this node knows of the stream's end.
//!
//! Every client that may publish on `live.>` can send a message with any sequence number. So only an answer of the
//! stream moves the position that clients get and at which rooms begin. A live event only moves [`StreamEnd::latest`],
//! which is used while the stream does not answer.
use std::{sync::atomic::AtomicUsize, time::Duration};

use parking_lot::Mutex;
use rollcall_base::names;
use rollcall_schema::Offset;
use tokio::{sync::Notify, time::Instant};

use super::stream::State;
use crate::Position;

/// How often the stream is read while its settings may keep it from republishing.
const REREAD: Duration = Duration::from_secs(1);

pub(super) struct StreamEnd {
    inner: Mutex<Inner>,
    poll_requests: Notify,
    /// The number of readers that [`crate::Bus::followers`] returns.
    pub(super) followers: AtomicUsize,
}

struct Inner {
    epoch: String,
    /// The server that leads the stream, if there is a cluster.
    leader: Option<String>,
    /// The last offset that the stream has confirmed.
    confirmed: u64,
    /// The highest offset of a delivered event.
    delivered: u64,
    /// When the last two answered questions were asked, earlier first.
    asked: [Instant; 2],
    /// The settings that break a promise.
    broken: Vec<String>,
    /// When the events last had to be read from the stream because of these settings.
    reread: Option<Instant>,
}

impl StreamEnd {
    pub(super) fn new(State { epoch, last, leader, .. }: State) -> Self {
        let (asked, broken) = ([Instant::now(); 2], Vec::new());
        let inner = Inner { epoch, leader, confirmed: last, delivered: last, asked, broken, reread: None };
        Self { inner: Mutex::new(inner), poll_requests: Notify::new(), followers: AtomicUsize::new(0) }
    }

    /// Returns the last position that the stream has confirmed.
    pub(super) fn position(&self) -> Position {
        let inner = self.inner.lock();
        Position { epoch: inner.epoch.clone(), offset: Offset(inner.confirmed) }
    }

    /// Returns the offset of [`StreamEnd::position`].
    pub(super) fn confirmed(&self) -> u64 {
        self.inner.lock().confirmed
    }

    /// Returns the position of the last known event, confirmed or not. No delivered event is after it.
    pub(super) fn latest(&self) -> Position {
        let inner = self.inner.lock();
        Position { epoch: inner.epoch.clone(), offset: Offset(inner.confirmed.max(inner.delivered)) }
    }

    /// Returns when the last two answered questions were asked, earlier first.
    pub(super) fn asked(&self) -> [Instant; 2] {
        self.inner.lock().asked
    }

    /// Records that an event was delivered.
    pub(super) fn note_delivered(&self, offset: u64) {
        let mut inner = self.inner.lock();
        inner.delivered = inner.delivered.max(offset);
    }

    /// Forgets delivered events, because the stream does not have some of them.
    pub(super) fn forget_delivered(&self) {
        let mut inner = self.inner.lock();
        inner.delivered = inner.confirmed;
    }

    /// Counts the delivered events as confirmed, because the connection is gone, and a server that was killed may have
    /// lost them.
    pub(super) fn trust_delivered(&self) {
        let mut inner = self.inner.lock();
        inner.confirmed = inner.confirmed.max(inner.delivered);
    }

    /// Records the stream's answer to a question. Returns false if it is another stream, if the stream was put back, or
    /// if another server leads it. Only the leader republishes, so the former leader may have stored events that no
    /// server republishes.
    pub(super) fn confirm(&self, state: &State, asked: Instant) -> bool {
        let mut inner = self.inner.lock();
        if state.leader != inner.leader {
            inner.leader.clone_from(&state.leader);
            return false;
        }
        if state.epoch != inner.epoch || state.last < inner.confirmed {
            return false;
        }
        metrics::gauge!(names::STREAM_BYTES).set(state.bytes as f64);
        if let Some(max) = state.max_bytes {
            metrics::gauge!(names::STREAM_LIMIT).set(max as f64);
        }
        inner.confirmed = state.last;
        inner.asked = [inner.asked[1], asked];
        true
    }

    /// Records which settings of the stream break a promise. Returns true if the events are to be read from the stream,
    /// because they may not have been republished: once a second while there are such settings, and once more after
    /// they were corrected.
    pub(super) fn note_settings(&self, broken: &[String]) -> bool {
        let mut inner = self.inner.lock();
        let changed = inner.broken != broken;
        if changed {
            inner.broken = broken.to_vec();
            match broken.is_empty() {
                true => tracing::info!("the stream's settings keep the promises again"),
                false => {
                    tracing::warn!(settings = broken.join("; "), "the stream's settings were changed: change them back")
                }
            }
        }
        let reread = changed || !broken.is_empty() && inner.reread.is_none_or(|at| at.elapsed() >= REREAD);
        if reread {
            inner.reread = Some(Instant::now());
        }
        reread
    }

    /// Returns the settings that break a promise.
    pub(super) fn broken_settings(&self) -> Vec<String> {
        self.inner.lock().broken.clone()
    }

    /// Makes this the known stream. Its offsets continue from `end`.
    pub(super) fn reset(&self, epoch: String, end: u64) {
        let mut inner = self.inner.lock();
        (inner.epoch, inner.confirmed, inner.delivered) = (epoch, end, end);
    }

    /// Requests a question to the stream, because an event came that the stream has not confirmed, or cannot confirm.
    pub(super) fn request_poll(&self) {
        self.poll_requests.notify_one();
    }

    /// Returns when the stream is to be asked.
    pub(super) async fn poll_requested(&self) {
        self.poll_requests.notified().await;
    }
}
