//! Events of rooms (PROTOCOL 3) behind one trait, with NATS JetStream or a log in the process.
//!
//! Invariant: a node has one feed. Every event of a subscribed room comes on it exactly once, and without a gap after
//! an outage. An event comes as soon as it can, so it may follow an event that is later in the stream. Events of one
//! publisher keep their order. A reader that needs the stream's order, also across rooms, waits for
//! [`BusEvent::Watermark`]. Events that can no longer be delivered are reported as [`BusEvent::Gap`].
mod event_publisher;
mod headers;
pub mod memory;
pub mod nats;
mod presence;

use std::{collections::HashSet, sync::atomic::AtomicUsize, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use rollcall_schema::{AgentId, ClassroomId, Offset, RoomId, Shards, Subject, TraceParent};
use tokio::sync::mpsc;
use uuid::Uuid;

use rollcall_base::tasks::TaskEnded;

pub use event_publisher::{EventPublisher, PublishLimits};
pub use presence::{PresenceEvent, PresencePage, PresenceRead};

/// Why a call to the bus failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the bus is away: {0}")]
pub struct BusError(pub String);

/// Why a message was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The bus is away or full, or the user lacks a right. The message may have been stored or not.
    #[error(transparent)]
    Away(BusError),
    /// This message can never be stored.
    #[error("the bus refuses this message: {0}")]
    Refused(String),
    /// The message was not stored, because it was late or another event of its subject came first. If the caller still
    /// owns the event, it tries again at once.
    #[error("another event came before")]
    Behind,
    /// The message was not stored, because too many events wait to be stored ([`PublishLimits`]).
    #[error("too many events wait to be stored")]
    Busy,
}

impl PublishError {
    /// Returns whether this is [`Self::Behind`], which is an error neither of the bus nor of the message.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        matches!(self, Self::Behind)
    }
}

/// Why the bus cannot serve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// The bus is away, and events wait.
    #[error(transparent)]
    Away(BusError),
    /// The bus answers, but an operator has to act: a right is missing, or a disk is full.
    #[error("{0}")]
    Unable(String),
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The room and the type of the event.
    pub subject: Subject,
    /// The `Nats-Msg-Id`. It is the same whenever the same event is published.
    pub message_id: Option<String>,
    /// The other headers, in order.
    pub headers: Vec<(&'static str, String)>,
    /// The body, a JSON object.
    pub body: Bytes,
    /// Whether the server refuses a copy that is delivered late.
    pub fence: Fence,
}

/// An event may count as [`Fence::FirstTry`] only within this time after its commit. After a broken connection a bus
/// waits longer than this before it guesses again.
pub const YOUNG: Duration = Duration::from_secs(1);

/// Whether the server refuses a message that is delivered late, after another node has published the same event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fence {
    /// The message is stored whenever it arrives.
    None,
    /// The message is stored only directly after the last event of its subject that this bus knows.
    AfterLast,
    /// The message is stored as with [`Self::AfterLast`]. No node has sent its event before, so it need not wait for
    /// the answers to the events before it.
    FirstTry,
}

/// An event that arrived, with its headers read (PROTOCOL 3).
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The room of the event.
    pub room: RoomId,
    /// The last token of the event's subject.
    pub topic: Box<str>,
    /// The event's number in the stream.
    pub offset: Offset,
    /// The agent that does not get the event (`Sender-Agent-Id`).
    pub sender: Option<AgentId>,
    /// The only agent that gets the event (`Receiver-Agent-Id`).
    pub receiver: Option<AgentId>,
    /// Whether no client gets the event (`Is-Internal: true`).
    pub internal: bool,
    /// `Entity-Event-Type`, `-Operation` and `-Sequence-Id`, if the event has all three.
    pub entity: Option<(String, String, i64)>,
    /// The trace of the event (`traceparent`). It is boxed, because most events have none.
    pub trace: Option<Box<TraceParent>>,
    /// How long ago the event was stored, if known. It is for `publish_to_push_seconds`.
    pub age: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

/// An item of the feed.
#[derive(Clone, Debug)]
pub enum BusEvent {
    /// An event.
    Event(Incoming),
    /// Every event up to this offset has been on the feed. If the server was stopped for longer than readers wait, such
    /// an event may still come later; it is not lost.
    Watermark(Offset),
    /// Events up to this offset may be lost. Every view of a room that began before it is incomplete.
    Gap(Offset),
    /// The stream was created again, or put back to an earlier time. Offsets continue from this one. Later offsets of
    /// the old stream are invalid, and no view is complete. An event of the new stream that came before this
    /// item comes again.
    StreamReset,
}

/// A position in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The stream's epoch, which names its creation. An offset of another epoch means nothing.
    pub epoch: String,
    /// The offset of the last event.
    pub offset: Offset,
}

/// The events of a replay, or the error that ends it.
pub type Replayed = mpsc::Receiver<Result<Incoming, BusError>>;

/// The result of [`Bus::replay`].
#[derive(Debug)]
pub enum Replay {
    /// The events in order, and the offset up to which they are complete. The channel ends after the last one. If the
    /// rest cannot be read, the last item is an error, because otherwise the receiver would take some of the events for
    /// all of them.
    Events(Replayed, Offset),
    /// Some of the events are gone, or the position is of another epoch.
    Lost,
}

/// The bus. Every call returns within 1.5 s.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Returns the name of the kind: `nats` or `memory`.
    fn name(&self) -> &'static str;
    /// Makes one round trip to the server.
    async fn ping(&self) -> Result<(), BusError>;
    /// Checks whether an event would be stored and received. It writes one, unless one was stored a moment ago.
    async fn probe(&self) -> Result<(), ProbeError> {
        self.ping().await.map_err(ProbeError::Away)
    }
    /// Publishes events in order, many at once. Returns a result for each, in the batch's order. Ok means stored
    /// (acknowledged). After a fenced event that was not stored, no later event of its agent is stored.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>>;
    /// Publishes events of handlers and of other services, as [`Bus::publish`] does. Events of presence do not wait for
    /// these events, however many they are. None of these events is fenced.
    async fn publish_events(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        self.publish(batch).await
    }
    /// Returns which of these message ids of presence were stored within this time. It may take longer than other
    /// calls. A bus that ends with the process returns none, because the relay remembers what it has published in this
    /// process.
    async fn stored(&self, _ids: &HashSet<String>, _age: Duration) -> Result<HashSet<String>, BusError> {
        Ok(HashSet::new())
    }
    /// Tells the relays of other nodes of this installation that these shards of the outbox have new rows. The message
    /// may be lost.
    async fn wake_relays(&self, _installation: Uuid, _shards: Shards) {}
    /// Returns the shards of these that other nodes name with [`Bus::wake_relays`]. The returned stream ends when its
    /// connection is given up.
    async fn relay_wakes(&self, _installation: Uuid, _shards: Shards) -> Result<BoxStream<'static, Shards>, BusError> {
        Ok(futures_util::stream::pending().boxed())
    }
    /// Subscribes to a room. After Ok, every event stored in the room reaches the feed. Some events that were stored
    /// before may come too, with offsets up to the one in Ok; they are not for new members. If the server is away, the
    /// result is Err, but the room is kept: once the server is back, the room's events after [`Bus::position`] at the
    /// time of the call are filled in.
    async fn subscribe(&self, room: &RoomId) -> Result<Offset, BusError>;
    /// Ends the subscription.
    fn unsubscribe(&self, room: &RoomId);
    /// Returns the last position that the stream has confirmed. The feed may be ahead of it.
    fn position(&self) -> Position;
    /// Returns the number of readers of the feed that wait for its watermark. The readers change the number themselves.
    /// While it is not zero, the watermark comes sooner.
    fn followers(&self) -> &AtomicUsize;
    /// Waits until one of the bus's tasks has ended. The bus does not work after that.
    async fn failed(&self) -> TaskEnded {
        std::future::pending().await
    }
    /// Returns the end of the stream. Every event that was stored before the call has a position up to this end. If the
    /// stream does not answer within half a second, the result is the position of the last event known: every event
    /// that was on the feed before the call has a position up to the result.
    async fn end(&self) -> Position;
    /// Returns the position before the oldest event that can still be replayed for a while. Events that will be
    /// forgotten soon are left out.
    async fn oldest(&self) -> Result<Position, BusError>;
    /// Returns the events of these rooms after `after.offset`, merged in order, up to the end of the stream.
    async fn replay(&self, rooms: &[RoomId], after: &Position) -> Result<Replay, BusError>;
    /// Returns the next events of presence of all classrooms after a position, at most `max`. Only one reader may call
    /// this at a time. It may take longer than other calls.
    ///
    /// # Errors
    /// Returns a [`BusError`] if the bus is away. A bus in the process always returns one, because it forgets events
    /// that a reader may still need.
    async fn presence(&self, _after: &Position, _max: usize) -> Result<PresenceRead, BusError> {
        Err(BusError("events in the process are read from SQL".to_owned()))
    }
    /// Returns the events of presence of one classroom after a position and through an offset, at most `max`. It may
    /// take longer than other calls.
    ///
    /// # Errors
    /// Returns the errors of [`Bus::presence`], and an error if the position is of another stream.
    async fn presence_of(
        &self,
        _classroom: ClassroomId,
        _after: &Position,
        _through: Offset,
        _max: usize,
    ) -> Result<Vec<PresenceEvent>, BusError> {
        Err(BusError("events in the process are read from SQL".to_owned()))
    }
}

/// Returns the result of [`Bus::oldest`] for a stream with these events. If the stream `forgets`, the oldest 60th of
/// them is left out, because it will be forgotten soon.
fn before_oldest(first: u64, last: u64, forgets: bool) -> Offset {
    let gone = first.saturating_sub(1);
    Offset(if forgets { gone + last.saturating_sub(gone).div_ceil(60) } else { gone })
}
