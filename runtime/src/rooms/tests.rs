use std::sync::OnceLock;

use async_trait::async_trait;
use rollcall_schema::{AgentId, LessonId};

use super::*;
use rollcall_bus::{BusError, Publication, PublishError};
use rollcall_websocket::{Application, Cause, Message, Socket, SocketIo, SocketOptions, Sockets, Upgrade, Workers};

/// A bus whose position is what the test says.
#[derive(Default)]
struct Scripted {
    position: AtomicU64,
    /// The position when it answers a subscription; none where it never does.
    subscribed: OnceLock<u64>,
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
        let position = self.subscribed.get().ok_or_else(|| BusError("away".to_owned()))?;
        self.position.store(*position, Ordering::SeqCst);
        Ok(Offset(*position))
    }

    fn unsubscribe(&self, _: &RoomId) {}

    fn position(&self) -> Position {
        Position { epoch: "epoch".to_owned(), offset: Offset(self.position.load(Ordering::SeqCst)) }
    }

    async fn end(&self) -> Position {
        self.position()
    }

    async fn replay(&self, _: &[RoomId], _: &Position) -> Result<Replay, BusError> {
        Ok(Replay::Lost)
    }
}

/// A worker that passes on what it hears of.
struct Listener(mpsc::UnboundedSender<Heard>);

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The room begins after that.
    Enter {
        begins: u64,
    },
    Event(u64),
    Anew,
}

impl Application for Listener {
    type Peer = ();
    type Command = WorkerCommand;

    fn opened(&mut self, _: &mut SocketIo<'_>, _: Upgrade) {}

    fn message(&mut self, _: &mut Socket<'_, ()>, _: Message<'_>) {}

    fn command(&mut self, _: &mut Sockets<()>, command: WorkerCommand) {
        let heard = match command {
            WorkerCommand::Enter { room, .. } => {
                let begins = (0..).find(|offset| room.has(Offset(offset + 1))).expect("somewhere");
                // Held for as long as the test lasts.
                std::mem::forget(room);
                Heard::Enter { begins }
            }
            WorkerCommand::Deliver(delivery) => Heard::Event(delivery.offset().0),
            WorkerCommand::StreamReset => Heard::Anew,
            _ => return,
        };
        self.0.send(heard).expect("the test listens");
    }

    fn closed(&mut self, _: &mut Sockets<()>, _: SocketId, (): (), _: Cause) {}
}

struct Bench {
    bus: Arc<Scripted>,
    rooms: Rooms,
    feed: mpsc::Sender<BusEvent>,
    heard: mpsc::UnboundedReceiver<Heard>,
    room: RoomId,
}

impl Bench {
    fn new() -> Self {
        let (said, heard) = mpsc::unbounded_channel();
        let mailboxes = Mailboxes::default();
        let workers = Workers::start(&rollcall_base::tasks::Tasks::default(), 1, &SocketOptions::default(), |_| {
            Listener(said.clone())
        });
        mailboxes.open(workers.expect("started"));
        let bus = Arc::new(Scripted::default());
        let rooms = Rooms::new(bus.clone(), mailboxes, 1 << 10);
        let (feed, fed) = mpsc::channel(8);
        tokio::spawn(rooms.clone().dispatch(fed));
        let room = RoomId::Lesson(LessonId::parse("algebra-1").expect("a lesson"));
        Self { bus, rooms, feed, heard, room }
    }

    /// Returns after which offset the room begins.
    async fn enter(&mut self) -> u64 {
        self.rooms.enter(SocketId::from_bits(0), self.room.clone()).await;
        let Some(Heard::Enter { begins }) = self.heard.recv().await else { panic!("it enters first") };
        begins
    }

    async fn feed(&self, offset: u64) {
        let event = Incoming {
            room: self.room.clone(),
            offset: Offset(offset),
            sender: AgentId::parse("web.alice.example.org").ok(),
            receiver: None,
            internal: false,
            entity: None,
            age: None,
            body: "{}".into(),
        };
        self.feed.send(BusEvent::Event(event)).await.expect("dispatched");
    }
}

#[tokio::test]
async fn what_a_filling_brings_of_before_a_room_began_is_not_for_its_members() {
    let mut bench = Bench::new();
    bench.bus.position.store(599, Ordering::SeqCst);
    bench.bus.subscribed.set(650).expect("set once");
    assert_eq!(bench.enter().await, 650);
    // A filling under way reads the room up to where the stream was when it began.
    for offset in [600, 614, 651] {
        bench.feed(offset).await;
    }
    assert_eq!(bench.heard.recv().await, Some(Heard::Event(651)));
}

#[tokio::test]
async fn a_room_that_nobody_subscribed_begins_where_it_was_wished_for() {
    let mut bench = Bench::new();
    bench.bus.position.store(599, Ordering::SeqCst);
    bench.enter().await;
    bench.feed(599).await;
    bench.feed(600).await;
    assert_eq!(bench.heard.recv().await, Some(Heard::Event(600)));
}

#[tokio::test]
async fn where_offsets_start_again_the_room_has_begun() {
    let mut bench = Bench::new();
    bench.bus.subscribed.set(650).expect("set once");
    bench.enter().await;
    bench.feed.send(BusEvent::StreamReset).await.expect("dispatched");
    bench.feed(1).await;
    assert_eq!(bench.heard.recv().await, Some(Heard::Anew));
    assert_eq!(bench.heard.recv().await, Some(Heard::Event(1)));
}
