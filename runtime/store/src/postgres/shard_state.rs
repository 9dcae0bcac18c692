//! What the parts of the store tell each other about the shards of the outbox: which node holds which, whether rows of
//! them are being published, and which have new rows.
use std::time::Duration;

use parking_lot::Mutex;
use rollcall_schema::{NodeId, Shards};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// How long a node that ends waits until its relay has published what it has read. A drain has no more time left.
const PUBLISHING: Duration = Duration::from_millis(30);
/// How long after the end of its relay a node gives up the claims. By then no row that the relay has read is under way
/// any more, as the times in [`super::shard_claims`] ensure.
const NO_RELAY: Duration = Duration::from_secs(2);

/// What a heartbeat has found of a node's claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) node: NodeId,
    /// When the heartbeat was sent.
    pub(super) at: Instant,
    pub(super) claim_epoch: i64,
    pub(super) held: usize,
    /// How many other nodes want shards, at most 7.
    pub(super) others: usize,
    /// Whether a shard is free.
    pub(super) free: bool,
}

/// Whether the relay has rows that it may be publishing.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    busy: bool,
    /// Set if this node must not read any more.
    ended: Option<NodeId>,
}

/// The state of the shards.
pub(super) struct ShardState {
    seen: Mutex<Option<Seen>>,
    /// Since when there is no relay. `None` while there is one.
    without_relay: Mutex<Option<Instant>>,
    reading: watch::Sender<Reading>,
    held: watch::Sender<Shards>,
    own: Notify,
    /// The shards that were named to the relay as having new rows, since the last [`ShardState::take_woken`].
    woken: Mutex<Shards>,
    others: watch::Sender<Shards>,
}

impl Default for ShardState {
    fn default() -> Self {
        let (reading, held, others) = (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        let without_relay = Mutex::new(Some(Instant::now()));
        Self {
            seen: Mutex::default(),
            without_relay,
            reading,
            held,
            own: Notify::new(),
            woken: Mutex::default(),
            others,
        }
    }
}

impl ShardState {
    /// Records a heartbeat. If it found a free shard, the relay checks whether it may have it.
    pub(super) fn saw(&self, seen: Seen) {
        *self.seen.lock() = Some(seen);
        if seen.free {
            self.own.notify_one();
        }
    }

    /// Returns what the latest heartbeat has found.
    pub(super) fn seen(&self) -> Option<Seen> {
        *self.seen.lock()
    }

    /// Records that a relay starts.
    pub(super) fn begin(&self) {
        *self.without_relay.lock() = None;
        self.reading.send_modify(|reading| *reading = Reading::default());
    }

    /// Records that the relay has ended, or has lost its connection.
    pub(super) fn end_relay(&self) {
        self.without_relay.lock().get_or_insert_with(Instant::now);
        self.hold(Shards::default());
        self.rest();
    }

    /// Returns whether this node has been without a relay for so long that other nodes must publish what it has
    /// committed.
    pub(super) fn has_no_relay(&self) -> bool {
        self.without_relay.lock().is_some_and(|since| since.elapsed() >= NO_RELAY)
    }

    /// Records that the relay holds these shards.
    pub(super) fn hold(&self, shards: Shards) {
        self.held.send_replace(shards);
    }

    /// Returns the shards that this process holds.
    pub(super) fn held(&self) -> watch::Receiver<Shards> {
        self.held.subscribe()
    }

    /// Records that this node may have committed rows to these shards. Wakes the relay of this process if it holds one
    /// of them, and notes those that other nodes hold.
    pub(super) fn wake(&self, shards: Shards) {
        self.woken(shards);
        let held = *self.held.borrow();
        let others = shards.without(held);
        if !others.is_empty() {
            self.others.send_modify(|waiting| *waiting = waiting.with(others));
        }
    }

    /// Records that this node or another one has committed rows to these shards. Wakes the relay of this process if it
    /// holds one of them.
    pub(super) fn woken(&self, shards: Shards) {
        if shards.meets(*self.held.borrow()) {
            let mut woken = self.woken.lock();
            *woken = woken.with(shards);
            self.own.notify_one();
        }
    }

    /// Returns the shards that have new rows since the last call.
    pub(super) fn take_woken(&self) -> Shards {
        std::mem::take(&mut *self.woken.lock())
    }

    /// Waits until there may be new rows for the relay.
    pub(super) async fn wait(&self) {
        self.own.notified().await;
    }

    /// Waits until this process has committed rows to shards that it does not hold, and returns those shards.
    pub(super) async fn rows_for_others(&self) -> Shards {
        let mut waiting = self.others.subscribe();
        // An error is not possible, because the sender lives as long as this value.
        let _ = waiting.wait_for(|shards| !shards.is_empty()).await;
        self.others.send_replace(Shards::default())
    }

    /// Records that this node's relay reads no more. Returns whether it has no rows left that it has read.
    pub(super) async fn end(&self, node: NodeId) -> bool {
        self.reading.send_modify(|reading| reading.ended = Some(node));
        let mut reading = self.reading.subscribe();
        timeout(PUBLISHING, reading.wait_for(|reading| !reading.busy)).await.is_ok()
    }

    /// Records that the relay no longer has rows that it may be publishing.
    pub(super) fn rest(&self) {
        self.reading.send_if_modified(|reading| std::mem::take(&mut reading.busy));
    }

    /// Returns whether the relay may read. From here to [`ShardState::rest`] it may have rows.
    pub(super) fn begin_read(&self, node: NodeId) -> bool {
        let mut may = false;
        self.reading.send_if_modified(|reading| {
            may = reading.ended != Some(node);
            reading.busy = may;
            false
        });
        may
    }
}
