//! What the parts of the store tell each other about the shards of the outbox: who holds which, whether rows of them are being
//! published, and where there are new ones.
use std::time::Duration;

use parking_lot::Mutex;
use rollcall_schema::{NodeId, Shards};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// How long a node that ends waits for what its relay publishes: a drain has no more time left.
const PUBLISHING: Duration = Duration::from_millis(30);
/// How long after its relay has ended a node gives up the claims: by then nothing that the relay has read is under way any
/// more, as the times in [`super::shard_claims`] say.
const NO_RELAY: Duration = Duration::from_secs(2);

/// What a heartbeat has found of a node's claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) node: NodeId,
    /// When it was sent.
    pub(super) at: Instant,
    pub(super) claim_epoch: i64,
    pub(super) held: usize,
    /// Other nodes that want shards, at most 7.
    pub(super) others: usize,
    /// A shard is free.
    pub(super) free: bool,
}

/// Whether the relay has rows that it may be publishing.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    busy: bool,
    /// This node reads no more.
    ended: Option<NodeId>,
}

/// What the parts of the store tell each other about shards.
pub(super) struct ShardState {
    seen: Mutex<Option<Seen>>,
    /// Since when there is no relay; none while there is one.
    without_relay: Mutex<Option<Instant>>,
    reading: watch::Sender<Reading>,
    held: watch::Sender<Shards>,
    own: Notify,
    /// The shards that were named to the relay as having new rows since the latest [`ShardState::take_woken`].
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
    /// A heartbeat was answered. Where it found a free shard, the relay looks whether it may have it.
    pub(super) fn saw(&self, seen: Seen) {
        *self.seen.lock() = Some(seen);
        if seen.free {
            self.own.notify_one();
        }
    }

    /// What the latest heartbeat has found.
    pub(super) fn seen(&self) -> Option<Seen> {
        *self.seen.lock()
    }

    /// A relay begins.
    pub(super) fn begin(&self) {
        *self.without_relay.lock() = None;
        self.reading.send_modify(|reading| *reading = Reading::default());
    }

    /// The relay has ended, or has lost its connection.
    pub(super) fn end_relay(&self) {
        self.without_relay.lock().get_or_insert_with(Instant::now);
        self.hold(Shards::default());
        self.rest();
    }

    /// Whether this node has been without a relay for so long that others are to publish what it committed.
    pub(super) fn has_no_relay(&self) -> bool {
        self.without_relay.lock().is_some_and(|since| since.elapsed() >= NO_RELAY)
    }

    /// The relay holds these.
    pub(super) fn hold(&self, shards: Shards) {
        self.held.send_replace(shards);
    }

    /// The shards that this process holds.
    pub(super) fn held(&self) -> watch::Receiver<Shards> {
        self.held.subscribe()
    }

    /// This node may have committed rows into these shards: wakes the relay of this process if it holds one of them, and
    /// notes those that other nodes hold.
    pub(super) fn wake(&self, shards: Shards) {
        self.woken(shards);
        let held = *self.held.borrow();
        let others = shards.without(held);
        if !others.is_empty() {
            self.others.send_modify(|waiting| *waiting = waiting.with(others));
        }
    }

    /// This node or another one has committed rows into these shards: wakes the relay of this process if it holds one of them.
    pub(super) fn woken(&self, shards: Shards) {
        if shards.meets(*self.held.borrow()) {
            let mut woken = self.woken.lock();
            *woken = woken.with(shards);
            self.own.notify_one();
        }
    }

    /// The shards in which there are new rows since the latest call.
    pub(super) fn take_woken(&self) -> Shards {
        std::mem::take(&mut *self.woken.lock())
    }

    /// Waits until there may be new rows for the relay.
    pub(super) async fn wait(&self) {
        self.own.notified().await;
    }

    /// Waits until this process has committed rows into shards that it does not hold, and returns those.
    pub(super) async fn rows_for_others(&self) -> Shards {
        let mut waiting = self.others.subscribe();
        // The sender lives as long as this.
        let _ = waiting.wait_for(|shards| !shards.is_empty()).await;
        self.others.send_replace(Shards::default())
    }

    /// This node's relay reads no more. Whether it has nothing left of what it has read.
    pub(super) async fn end(&self, node: NodeId) -> bool {
        self.reading.send_modify(|reading| reading.ended = Some(node));
        let mut reading = self.reading.subscribe();
        timeout(PUBLISHING, reading.wait_for(|reading| !reading.busy)).await.is_ok()
    }

    /// The relay no longer has rows that it may be publishing.
    pub(super) fn rest(&self) {
        self.reading.send_if_modified(|reading| std::mem::take(&mut reading.busy));
    }

    /// Whether the relay may read; from here to [`ShardState::rest`] it may have rows.
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
