//! Where a room begins: its members get the events after that position, and no others.
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use rollcall_schema::{AgentId, LessonId, Offset, RoomId};
use tokio::sync::{Mutex, mpsc};

use super::*;
use rollcall_bus::{Bus, BusError, BusEvent, Incoming, Position, Publication, PublishError, Replay};
use rollcall_websocket::SocketId;

/// A bus whose position the test sets.
#[derive(Default)]
struct Scripted {
    position: AtomicU64,
    /// Whether the stream was created again.
    anew: AtomicBool,
    /// The position when the bus answers a subscription. If it is not set, the bus never answers.
    subscribed: OnceLock<u64>,
    /// While the lock is held, subscriptions wait.
    waits: Mutex<()>,
    followers: AtomicUsize,
}

#[async_trait]
impl Bus for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn ping(&self) -> Result<(), BusError> {
        Ok(())
    }

    async fn publish(&self, _: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        Vec::new()
    }

    async fn subscribe(&self, _: &RoomId) -> Result<Offset, BusError> {
        drop(self.waits.lock().await);
        let position = self.subscribed.get().ok_or_else(|| BusError("away".to_owned()))?;
        self.position.store(*position, Ordering::SeqCst);
        Ok(Offset(*position))
    }

    fn unsubscribe(&self, _: &RoomId) {}

    fn followers(&self) -> &AtomicUsize {
        &self.followers
    }

    fn position(&self) -> Position {
        let epoch = if self.anew.load(Ordering::SeqCst) { "next epoch" } else { "epoch" };
        Position { epoch: epoch.to_owned(), offset: Offset(self.position.load(Ordering::SeqCst)) }
    }

    async fn end(&self) -> Position {
        self.position()
    }

    async fn oldest(&self) -> Result<Position, BusError> {
        Ok(self.position())
    }

    async fn replay(&self, _: &[RoomId], _: &Position) -> Result<Replay, BusError> {
        Ok(Replay::Lost)
    }
}

/// The workers of a test. The test gets the commands that are sent to them.
struct Listener(mpsc::UnboundedSender<RoomCommand>);

#[async_trait]
impl RoomWorkers for Listener {
    fn count(&self) -> usize {
        1
    }

    async fn send(&self, _: usize, command: RoomCommand) {
        self.0.send(command).expect("the test listens");
    }
}

struct Bench {
    bus: Arc<Scripted>,
    rooms: Rooms,
    feed: mpsc::Sender<BusEvent>,
    commands: mpsc::UnboundedReceiver<RoomCommand>,
    /// Keeps the rooms until the end of the test.
    held: Vec<RoomHold>,
    room: RoomId,
}

impl Bench {
    fn new() -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        let bus = Arc::new(Scripted::default());
        let rooms = Rooms::new(bus.clone(), Arc::new(Listener(sender)), 1 << 10);
        let (feed, events) = mpsc::channel(8);
        tokio::spawn(rooms.clone().dispatch(events));
        let room = RoomId::Lesson(LessonId::parse("algebra-1").expect("a lesson"));
        Self { bus, rooms, feed, commands, held: Vec::new(), room }
    }

    /// Enters a room, and returns the offset after which the room begins.
    async fn enter(&mut self) -> u64 {
        self.rooms.enter(SocketId::from_bits(0), self.room.clone()).await;
        let Some(RoomCommand::AddMember { room, .. }) = self.commands.recv().await else {
            panic!("a member is added first")
        };
        let begins = (0..).find(|offset| room.has(Offset(offset + 1))).expect("somewhere");
        self.held.push(room);
        begins
    }

    /// Returns the offset of the next event.
    async fn delivered(&mut self) -> u64 {
        let Some(RoomCommand::Deliver(delivery)) = self.commands.recv().await else { panic!("an event comes") };
        delivery.offset().0
    }

    async fn feed(&self, offset: u64) {
        let event = Incoming {
            topic: "note".into(),
            room: self.room.clone(),
            offset: Offset(offset),
            sender: AgentId::parse("web.alice.example.org").ok(),
            receiver: None,
            internal: false,
            entity: None,
            trace: None,
            age: None,
            body: "{}".into(),
        };
        self.feed.send(BusEvent::Event(event)).await.expect("dispatched");
    }
}

#[tokio::test]
async fn members_get_no_event_of_a_backfill_from_before_their_room_began() {
    let mut bench = Bench::new();
    bench.bus.position.store(599, Ordering::SeqCst);
    bench.bus.subscribed.set(650).expect("set once");
    assert_eq!(bench.enter().await, 650);
    // A running backfill reads the room through the position that the stream had when the backfill began.
    for offset in [600, 614, 651] {
        bench.feed(offset).await;
    }
    assert_eq!(bench.delivered().await, 651);
}

/// The subscription was live when NATS died, and one event came. The events just before that event are read from the
/// stream later.
#[tokio::test]
async fn members_get_no_event_from_before_one_that_came_before_them() {
    let mut bench = Bench::new();
    bench.bus.position.store(599, Ordering::SeqCst);
    let bus = bench.bus.clone();
    let waits = bus.waits.lock().await;
    let (rooms, room) = (bench.rooms.clone(), bench.room.clone());
    let entering = tokio::spawn(async move { rooms.enter(SocketId::from_bits(0), room).await });
    while !bench.rooms.has_members(&bench.room) {
        tokio::task::yield_now().await;
    }
    bench.feed(614).await;
    assert_eq!(bench.delivered().await, 614, "to nobody yet");
    drop(waits);
    entering.await.expect("entered");
    let Some(RoomCommand::AddMember { room, .. }) = bench.commands.recv().await else { panic!("a member is added") };
    for offset in [600, 613, 615] {
        bench.feed(offset).await;
    }
    assert_eq!(bench.delivered().await, 615);
    drop(room);
}

#[tokio::test]
async fn without_an_answer_a_room_begins_where_the_stream_was_last_known_to_be() {
    let mut bench = Bench::new();
    bench.bus.position.store(599, Ordering::SeqCst);
    bench.enter().await;
    bench.feed(599).await;
    bench.feed(600).await;
    assert_eq!(bench.delivered().await, 600);
}

#[tokio::test]
async fn after_a_stream_reset_members_get_events_from_offset_1() {
    let mut bench = Bench::new();
    bench.bus.subscribed.set(650).expect("set once");
    bench.enter().await;
    bench.feed.send(BusEvent::StreamReset).await.expect("dispatched");
    bench.feed(1).await;
    assert!(matches!(bench.commands.recv().await, Some(RoomCommand::StreamReset)));
    assert_eq!(bench.delivered().await, 1);
}

#[tokio::test]
async fn no_client_is_told_a_position_in_a_new_stream_before_the_workers_know_of_the_stream() {
    let mut bench = Bench::new();
    bench.bus.anew.store(true, Ordering::SeqCst);
    assert_eq!(bench.rooms.end_of_feed().await, None);
    bench.feed.send(BusEvent::StreamReset).await.expect("dispatched");
    assert!(matches!(bench.commands.recv().await, Some(RoomCommand::StreamReset)));
    while bench.rooms.end_of_feed().await.is_none() {
        tokio::task::yield_now().await;
    }
}
