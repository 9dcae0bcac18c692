//! An implementation of the bus with its feed, and the steps that all test cases use.
use std::{sync::Arc, time::Duration};

use async_nats::jetstream;
use rollcall_bus::{
    Bus, BusEvent, Fence, Incoming, Publication,
    memory::{LogLimits, MemoryBus},
    nats::NatsBus,
};
use rollcall_loadtest::servers::Nats;
use rollcall_schema::{ClassroomId, LessonId, Offset, RoomId, Subject};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// An implementation of the bus.
pub(crate) struct Bench {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) feed: mpsc::Receiver<BusEvent>,
    backend: Backend,
}

enum Backend {
    Memory(Arc<MemoryBus>),
    Nats(Nats),
}

pub(crate) fn memory() -> Bench {
    let (bus, feed) = MemoryBus::start(LogLimits::default());
    let bus = Arc::new(bus);
    Bench { bus: bus.clone(), feed, backend: Backend::Memory(bus) }
}

pub(crate) async fn through_nats() -> Bench {
    let server = Nats::start().unwrap();
    let (bus, feed) = NatsBus::connect(&server.url()).await.unwrap();
    Bench { bus: Arc::new(bus), feed, backend: Backend::Nats(server) }
}

impl Bench {
    /// Publishes messages that must be stored.
    pub(crate) async fn publish(&self, batch: Vec<Publication>) -> Vec<Offset> {
        self.bus.publish(batch).await.into_iter().map(Result::unwrap).collect()
    }

    /// Returns the offset of the last event.
    pub(crate) async fn end(&self) -> Offset {
        self.bus.end().await.offset
    }

    /// Forgets all events.
    pub(crate) async fn purge(&self) {
        match &self.backend {
            Backend::Memory(bus) => bus.purge(),
            Backend::Nats(server) => purge(&server.url()).await,
        }
    }
}

pub(crate) async fn purge(url: &str) {
    let stream = jetstream::new(async_nats::connect(url).await.unwrap()).get_stream("CLASSROOM").await.unwrap();
    stream.purge().await.unwrap();
}

/// Returns a new classroom's room.
pub(crate) fn classroom() -> RoomId {
    RoomId::Classroom(ClassroomId(Uuid::new_v4()))
}

/// Returns a new lesson's room.
pub(crate) fn lesson() -> RoomId {
    RoomId::Lesson(LessonId::parse(&Uuid::new_v4().to_string()).unwrap())
}

/// Returns a numbered event.
pub(crate) fn note(room: &RoomId, message_id: impl Into<String>, number: i64) -> Publication {
    Publication {
        subject: Subject::parse(&format!("{room}.note")).unwrap(),
        message_id: Some(message_id.into()),
        headers: vec![
            ("Entity-Event-Type", "note".to_owned()),
            ("Entity-Event-Operation", "made".to_owned()),
            ("Entity-Event-Sequence-Id", number.to_string()),
        ],
        body: format!("{{\"n\":{number}}}").into(),
        fence: Fence::None,
    }
}

/// Returns the next item of the feed.
pub(crate) async fn fed_any(feed: &mut mpsc::Receiver<BusEvent>) -> BusEvent {
    timeout(Duration::from_secs(20), feed.recv()).await.expect("an event in time").unwrap()
}

/// Returns the next item of the feed other than a watermark.
pub(crate) async fn fed(feed: &mut mpsc::Receiver<BusEvent>) -> BusEvent {
    loop {
        match fed_any(feed).await {
            BusEvent::Watermark(_) => {}
            other => return other,
        }
    }
}

/// Returns the next `count` events of the feed. Their offsets must ascend, because one publisher at a time publishes
/// here.
pub(crate) async fn collect(feed: &mut mpsc::Receiver<BusEvent>, count: usize) -> Vec<Incoming> {
    let mut events: Vec<Incoming> = Vec::new();
    while events.len() < count {
        match fed(feed).await {
            BusEvent::Event(event) => {
                assert!(events.last().is_none_or(|last| last.offset < event.offset), "{events:?}\nthen {event:?}");
                events.push(event);
            }
            other => panic!("{other:?} after {} events", events.len()),
        }
    }
    events
}

/// Returns the events' numbers.
pub(crate) fn ids(events: &[Incoming]) -> Vec<i64> {
    events.iter().map(|event| event.entity.as_ref().unwrap().2).collect()
}

/// How long a call may take.
const ANSWER: Duration = Duration::from_millis(1600);
/// How long a test waits before it asks again.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

pub(crate) async fn in_time<T>(call: impl Future<Output = T>) -> T {
    timeout(ANSWER, call).await.expect("an answer in time")
}

/// Publishes as a relay does: until the event is acknowledged, each time with the same message id.
pub(crate) async fn publish_surely(bus: &dyn Bus, room: &RoomId, number: i64) -> Offset {
    let since = Instant::now();
    loop {
        let publication = note(room, format!("{room}-{number}"), number);
        match in_time(bus.publish(vec![publication])).await.remove(0) {
            Ok(offset) => return offset,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
        }
        sleep(PAUSE).await;
    }
}
