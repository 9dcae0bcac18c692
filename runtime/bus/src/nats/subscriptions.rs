//! The rooms that this node wants, and what is to be said of them on the live connection.
//!
//! Invariant: a room is in the table from the wish until it is unsubscribed, whether or not the server knows of it; while
//! the connection lives, each change of the table is said on it, in order. A room costs an entry here and nothing else.
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

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

/// Who waits for a round trip.
pub(super) type Waiter = oneshot::Sender<Result<State, StateError>>;

#[derive(Default)]
pub(super) struct Subscriptions {
    table: Mutex<SubscriptionTable>,
    changed: Notify,
}

#[derive(Default)]
struct SubscriptionTable {
    rooms: HashMap<RoomId, Subscription>,
    /// The last subscription's number.
    sid: u64,
    connected: bool,
    /// What the server has not been told yet. Nothing is kept here while there is no connection, and the writer gives a
    /// connection up that takes nothing.
    outgoing: Vec<u8>,
    /// Who waits for the next round trip.
    waiters: Vec<Waiter>,
}

struct Subscription {
    /// The number of its subscription: of an earlier one of the room, nothing is wanted any more.
    sid: u64,
    /// Only events after this one are for the room.
    start: u64,
}

impl Subscriptions {
    /// Notes the wish for a room; events up to the stream's known end are not for it. False where it was there already.
    pub(super) fn add(&self, room: &RoomId, stream_end: &StreamEnd) -> bool {
        let mut table = self.lock();
        // Under the lock, so that it cannot be an offset of before a reset that has put the rooms back already.
        let start = stream_end.confirmed();
        if table.rooms.contains_key(room) {
            return false;
        }
        table.sid += 1;
        let subscription = Subscription { sid: table.sid, start };
        if table.connected {
            write_subscribe(&mut table.outgoing, room, subscription.sid);
        }
        table.rooms.insert(room.clone(), subscription);
        true
    }

    /// Whoever wanted the room knows that it is subscribed to: events up to here are not for it.
    pub(super) fn begin_after(&self, room: &RoomId, through: u64, stream_end: &StreamEnd) {
        if let Some(subscription) = self.lock().rooms.get_mut(room) {
            // As in `want`: the answer may be one of before a reset.
            subscription.start = subscription.start.max(through.min(stream_end.confirmed()));
        }
    }

    /// Forgets a room.
    pub(super) fn remove(&self, room: &RoomId) {
        let mut table = self.lock();
        let Some(Subscription { sid, .. }) = table.rooms.remove(room) else { return };
        if table.connected {
            table.outgoing.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
            drop(table);
            self.changed.notify_one();
        }
    }

    /// A round trip on the live connection that begins after this call, with all rooms wanted so far subscribed before
    /// it: the stream's state. An error at once where there is no connection, and after [`CALL_TIMEOUT`] in any case.
    pub(super) async fn round_trip(&self) -> Result<State, StateError> {
        let (waiter, answer) = oneshot::channel();
        {
            let mut table = self.lock();
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

    /// Whether a message of this subscription is one for this room.
    pub(super) fn has(&self, room: &RoomId, sid: u64) -> bool {
        self.lock().rooms.get(room).is_some_and(|subscription| subscription.sid == sid)
    }

    /// The rooms, and after which event each.
    pub(super) fn all(&self) -> Vec<(RoomId, u64)> {
        self.lock().rooms.iter().map(|(room, subscription)| (room.clone(), subscription.start)).collect()
    }

    /// The stream's offsets go on from here: a new one's from 0.
    pub(super) fn cap_starts(&self, end: u64) {
        self.lock().rooms.values_mut().for_each(|subscription| subscription.start = subscription.start.min(end));
    }

    /// There is a connection: all rooms are to be said on it.
    pub(super) fn connected(&self) {
        let mut table = self.lock();
        let table = &mut *table;
        table.connected = true;
        for (room, subscription) in &table.rooms {
            write_subscribe(&mut table.outgoing, room, subscription.sid);
        }
        self.changed.notify_one();
    }

    /// The connection is gone, and with it whoever waited for it.
    pub(super) fn disconnected(&self) {
        let mut table = self.lock();
        table.connected = false;
        table.outgoing = Vec::new();
        table.waiters.clear();
    }

    /// Returns when there may be something to say.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is to be said.
    pub(super) fn take_outgoing(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().outgoing)
    }

    /// What is to be said, and who waits for a round trip after that.
    pub(super) fn take_round_trip(&self) -> (Vec<u8>, Vec<Waiter>) {
        let mut table = self.lock();
        (std::mem::take(&mut table.outgoing), std::mem::take(&mut table.waiters))
    }

    fn lock(&self) -> MutexGuard<'_, SubscriptionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_subscribe(outgoing: &mut Vec<u8>, room: &RoomId, sid: u64) {
    outgoing.extend_from_slice(format!("SUB {LIVE_PREFIX}{} {sid}\r\n", room.filter()).as_bytes());
}
