//! The rooms that this node needs, and the SUB and UNSUB lines that the live connection has not written yet.
//!
//! Invariant: a room is in the table from its subscribe call until its unsubscribe call, whether or not the server
//! knows of it. While the connection lives, each change of the table is written to it, in order. A room costs one entry
//! here, and on the server one subscription for each spelling of its subjects.
use std::collections::HashMap;

use parking_lot::Mutex;
use rollcall_schema::{RoomId, subject::LIVE_PREFIX};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::{
    CALL_TIMEOUT,
    stream::{State, StateError},
    stream_end::StreamEnd,
};

/// A caller that waits for a round trip. A caller that has timed out is skipped.
pub(super) type Waiter = oneshot::Sender<Result<State, StateError>>;

#[derive(Default)]
pub(super) struct Subscriptions {
    table: Mutex<SubscriptionTable>,
    changed: Notify,
}

#[derive(Default)]
struct SubscriptionTable {
    rooms: HashMap<RoomId, Subscription>,
    /// The number of the latest room's subscription.
    sid: u64,
    connected: bool,
    /// Lines that are not written yet. There are none without a connection, and a connection that takes no bytes is
    /// given up, so their number is bounded.
    outgoing: Vec<u8>,
    /// Callers that wait for the next round trip.
    waiters: Vec<Waiter>,
}

struct Subscription {
    /// The subscription's number, which is even. The other spelling has the next number. Messages of the room's earlier
    /// subscriptions are dropped.
    sid: u64,
    /// The offset after which events are for the room.
    start: u64,
}

impl Subscriptions {
    /// Adds a room. Events up to the stream's confirmed end are not for it. Returns false if the room is there already.
    pub(super) fn add(&self, room: &RoomId, stream_end: &StreamEnd) -> bool {
        let mut table = self.table.lock();
        // The end is read under the lock: after a reset has lowered the starts, no offset of the old stream may be
        // stored.
        let start = stream_end.confirmed();
        if table.rooms.contains_key(room) {
            return false;
        }
        table.sid += 2;
        let subscription = Subscription { sid: table.sid, start };
        if table.connected {
            write_subscribe(&mut table.outgoing, room, subscription.sid);
        }
        table.rooms.insert(room.clone(), subscription);
        true
    }

    /// Records that the room's subscription is live. Events up to the stream's confirmed end are not for it. Returns
    /// that end.
    pub(super) fn begin(&self, room: &RoomId, stream_end: &StreamEnd) -> u64 {
        let mut table = self.table.lock();
        // The end is read under the lock, as in `add`.
        let end = stream_end.confirmed();
        if let Some(subscription) = table.rooms.get_mut(room) {
            subscription.start = subscription.start.max(end);
        }
        end
    }

    /// Removes a room.
    pub(super) fn remove(&self, room: &RoomId) {
        let mut table = self.table.lock();
        let Some(Subscription { sid, .. }) = table.rooms.remove(room) else { return };
        if table.connected {
            for (_, sid) in room.filters().zip(sid..) {
                table.outgoing.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
            }
            drop(table);
            self.changed.notify_one();
        }
    }

    /// Returns the stream's state, asked on the live connection after this call, and after the SUB of every room added
    /// so far. So these subscriptions are live then. Without a connection the call fails at once, otherwise after
    /// [`CALL_TIMEOUT`].
    pub(super) async fn round_trip(&self) -> Result<State, StateError> {
        let (waiter, answer) = oneshot::channel();
        {
            let mut table = self.table.lock();
            if !table.connected {
                return Err(StateError::Away("not connected".to_owned()));
            }
            table.waiters.push(waiter);
        }
        self.changed.notify_one();
        match timeout(CALL_TIMEOUT, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(StateError::Away("the connection broke".to_owned()))),
            Err(_) => Err(StateError::Away("no answer in time".to_owned())),
        }
    }

    /// Returns whether a caller waits for the next round trip.
    pub(super) fn is_awaited(&self) -> bool {
        !self.table.lock().waiters.is_empty()
    }

    /// Returns whether this is the number of the room's present subscription.
    pub(super) fn has(&self, room: &RoomId, sid: u64) -> bool {
        self.table.lock().rooms.get(room).is_some_and(|subscription| subscription.sid == sid & !1)
    }

    /// Returns all rooms, each with the offset after which events are for it.
    pub(super) fn all(&self) -> Vec<(RoomId, u64)> {
        self.table.lock().rooms.iter().map(|(room, subscription)| (room.clone(), subscription.start)).collect()
    }

    /// Lowers all starts to `end`, from which the stream's offsets continue: 0 in a new stream.
    pub(super) fn cap_starts(&self, end: u64) {
        self.table.lock().rooms.values_mut().for_each(|subscription| subscription.start = subscription.start.min(end));
    }

    /// Records that there is a new connection, on which all rooms must be subscribed.
    pub(super) fn connected(&self) {
        let mut table = self.table.lock();
        let table = &mut *table;
        table.connected = true;
        for (room, subscription) in &table.rooms {
            write_subscribe(&mut table.outgoing, room, subscription.sid);
        }
        self.changed.notify_one();
    }

    /// Records that the connection is gone. Round trips on it fail.
    pub(super) fn disconnected(&self) {
        let mut table = self.table.lock();
        table.connected = false;
        table.outgoing = Vec::new();
        table.waiters.clear();
    }

    /// Returns when there may be something to write.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns the lines to write.
    pub(super) fn take_outgoing(&self) -> Vec<u8> {
        std::mem::take(&mut self.table.lock().outgoing)
    }

    /// Returns the lines to write, and the callers of the round trip that follows them.
    pub(super) fn take_round_trip(&self) -> (Vec<u8>, Vec<Waiter>) {
        let mut table = self.table.lock();
        (std::mem::take(&mut table.outgoing), std::mem::take(&mut table.waiters))
    }
}

fn write_subscribe(outgoing: &mut Vec<u8>, room: &RoomId, sid: u64) {
    for (filter, sid) in room.filters().zip(sid..) {
        outgoing.extend_from_slice(format!("SUB {LIVE_PREFIX}{filter} {sid}\r\n").as_bytes());
    }
}
