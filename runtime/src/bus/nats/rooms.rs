//! The rooms that this node wants, and their subscriptions on the live connection.
//!
//! Invariant: a room is in the table from the wish until it is unsubscribed, whether or not the server knows of it. One
//! task makes the subscriptions and proves them by a round trip that all who wait share.
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_nats::{Client, HeaderMap, Message, Subscriber};
use futures_util::Stream;
use rollcall_schema::{Offset, RoomId, subject::LIVE_PREFIX};
use slab::Slab;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::{Notify, oneshot};

use super::{Known, flow::Flow, stream};
use crate::{
    bus::{BusError, Incoming, heading},
    names,
};

/// Messages that wait in one subscription, unread. The collector reads at once, so this many mean that the library may
/// have thrown one away.
pub(super) const CAPACITY: usize = 16 * 1024;

/// Which subscriptions have something to read.
#[derive(Default)]
pub(super) struct Ready {
    slots: Mutex<Vec<usize>>,
    bell: Notify,
}

impl Ready {
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn add(&self, slot: usize) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        self.ring();
    }

    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct SlotWaker {
    slot: usize,
    ready: Arc<Ready>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.ready.add(self.slot);
    }
}

type Waiter = oneshot::Sender<Result<stream::State, BusError>>;

pub(super) struct Rooms {
    table: Mutex<Table>,
    ready: Arc<Ready>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    rooms: HashMap<RoomId, usize>,
    slots: Slab<Slot>,
    /// Wishes without a subscription yet.
    missing: Vec<Wish>,
    /// Who waits for the next round trip.
    waiters: Vec<Waiter>,
    wishes: u64,
}

struct Slot {
    wish: u64,
    subscriber: Option<Subscriber>,
    waker: Waker,
    /// Only events after this one are for the room.
    since: u64,
}

struct Wish {
    number: u64,
    slot: usize,
    room: RoomId,
}

impl Rooms {
    pub(super) fn new(ready: Arc<Ready>) -> Self {
        Self { table: Mutex::default(), ready, changed: Notify::new() }
    }

    /// Notes the wish for a room; events up to `since` are not for it.
    pub(super) fn want(&self, room: &RoomId, since: u64) {
        let mut table = self.lock();
        let table = &mut *table;
        if table.rooms.contains_key(room) {
            return;
        }
        table.wishes += 1;
        let entry = table.slots.vacant_entry();
        let slot = entry.key();
        let waker = Arc::new(SlotWaker { slot, ready: self.ready.clone() }).into();
        entry.insert(Slot { wish: table.wishes, subscriber: None, waker, since });
        table.rooms.insert(room.clone(), slot);
        table.missing.push(Wish { number: table.wishes, slot, room: room.clone() });
    }

    /// Forgets a room.
    pub(super) fn drop_room(&self, room: &RoomId) {
        let mut table = self.lock();
        if let Some(slot) = table.rooms.remove(room) {
            table.slots.remove(slot);
        }
    }

    /// A round trip that begins after this call, with all rooms wanted so far subscribed before it.
    pub(super) fn round(&self) -> oneshot::Receiver<Result<stream::State, BusError>> {
        let (waiter, answer) = oneshot::channel();
        self.lock().waiters.push(waiter);
        self.changed.notify_one();
        answer
    }

    /// The rooms, and after which event each.
    pub(super) fn wanted(&self) -> Vec<(RoomId, u64)> {
        let table = self.lock();
        table.rooms.iter().map(|(room, slot)| (room.clone(), table.slots[*slot].since)).collect()
    }

    /// The stream was made anew: its offsets start again.
    pub(super) fn start_again(&self) {
        for (_, slot) in &mut self.lock().slots {
            slot.since = 0;
        }
    }

    /// Reads whatever there is to read. False where something was lost, or may have been.
    pub(super) fn drain(&self, events: &mut Vec<Incoming>) -> bool {
        let mut sound = true;
        let ready = self.ready.take();
        let mut table = self.lock();
        for slot in ready {
            let Some(slot) = table.slots.get_mut(slot) else { continue };
            let Some(subscriber) = &mut slot.subscriber else { continue };
            let mut context = Context::from_waker(&slot.waker);
            let mut count = 0;
            while let Poll::Ready(Some(message)) = Pin::new(&mut *subscriber).poll_next(&mut context) {
                count += 1;
                let Some(arrival) = Arrival::read(&message) else {
                    metrics::counter!(names::DROPPED, "reason" => "header").increment(1);
                    continue;
                };
                events.extend(arrival.event(message));
            }
            sound &= count < CAPACITY;
        }
        sound
    }

    fn attach(&self, wish: &Wish, subscriber: Subscriber) {
        let mut table = self.lock();
        if let Some(slot) = table.slots.get_mut(wish.slot).filter(|slot| slot.wish == wish.number) {
            slot.subscriber = Some(subscriber);
            // The first reading leaves the waker.
            self.ready.add(wish.slot);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the subscriptions that are wished for, and the round trips. While the connection is away the library takes a
/// few thousand commands more, and then this waits; who waits for it does so with a timeout.
pub(super) async fn attend(rooms: Arc<Rooms>, client: Client, flow: Arc<Flow>, known: Arc<Known>) {
    loop {
        rooms.changed.notified().await;
        let (missing, waiters) = {
            let mut table = rooms.lock();
            (std::mem::take(&mut table.missing), std::mem::take(&mut table.waiters))
        };
        for wish in &missing {
            match client.subscribe(format!("{LIVE_PREFIX}{}", wish.room.filter())).await {
                Ok(subscriber) => rooms.attach(wish, subscriber),
                // Only a closed client refuses: this node is on its way out.
                Err(_) => return,
            }
        }
        let outcome = stream::look(&client).await.map_err(|error| BusError(error.to_string()));
        if let Ok(state) = &outcome {
            known.raise(state.last);
        }
        let mut heard = outcome.is_ok();
        for waiter in waiters {
            heard &= waiter.send(outcome.clone()).is_ok();
        }
        // Who was told that it failed, or gave up waiting, gets what came since the wish by filling.
        if !heard && !missing.is_empty() {
            flow.break_off();
        }
    }
}

/// What the stream says of a republished message.
struct Arrival {
    sequence: u64,
    /// How long ago it was stored; servers before 2.10 do not say.
    age: Option<Duration>,
}

impl Arrival {
    /// The server's headers come after those of the publisher, so a forged one does not count.
    fn read(message: &Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        let number = |name: &str| headers.get_last(name)?.as_str().parse().ok();
        let stored = headers.get_last("Nats-Time-Stamp").map(|text| OffsetDateTime::parse(text.as_str(), &Rfc3339));
        Some(Self {
            sequence: number("Nats-Sequence")?,
            // Clocks differ: a negative age is none.
            age: stored.and_then(|at| (OffsetDateTime::now_utc() - at.ok()?).try_into().ok()),
        })
    }

    fn event(self, message: Message) -> Option<Incoming> {
        let headers = message.headers.unwrap_or_default();
        let subject = message.subject.strip_prefix(LIVE_PREFIX)?;
        heading::incoming(subject, pairs(&headers), Offset(self.sequence), self.age, message.payload)
    }
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())))
}
