//! Events of rooms (PROTOCOL 3), behind one trait: NATS JetStream, or a log in process.
//!
//! Invariant: a node has one feed. Every event of a subscribed room comes on it exactly once, and without a gap after
//! an outage. It comes at once, so it may follow an event that is later in the stream; events of one publisher keep
//! their order. A reader that needs the stream's order, also across rooms, waits for [`BusEvent::Watermark`]. What
//! cannot be delivered any more is reported as [`BusEvent::Gap`].
mod event_publisher;
mod headers;
pub mod memory;
pub mod nats;
mod presence;

use std::{collections::HashSet, time::Duration};

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
    /// The bus is away, full, or the user lacks a right. Whether it was stored is unknown.
    #[error(transparent)]
    Away(BusError),
    /// This message can never be stored.
    #[error("the bus refuses this message: {0}")]
    Refused(String),
    /// It was not stored, because it was late or another event of its subject came first. If the caller still owns the
    /// event, it tries again at once.
    #[error("another event came before")]
    Behind,
    /// It was not stored, because too many events wait to be ([`PublishLimits`]).
    #[error("too many events wait to be stored")]
    Busy,
}

impl PublishError {
    /// Whether it is an error neither of the bus nor of the message.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        matches!(self, Self::Behind)
    }
}

/// Why the bus cannot serve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// The bus is away; events wait.
    #[error(transparent)]
    Away(BusError),
    /// The bus answers, but an operator has to act: a right is missing, or a disk is full.
    #[error("{0}")]
    Unable(String),
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Its room and type.
    pub subject: Subject,
    /// `Nats-Msg-Id`: the same whenever the same event is published.
    pub message_id: Option<String>,
    /// Further headers, in order.
    pub headers: Vec<(&'static str, String)>,
    /// A JSON object.
    pub body: Bytes,
    /// Whether a copy that is delivered late is refused.
    pub fence: Fence,
}

/// An event that was committed so long ago at most may count as [`Fence::FirstTry`]: a bus waits for longer before it
/// guesses again after a broken connection.
pub const YOUNG: Duration = Duration::from_secs(1);

/// Whether a message that is delivered late, after another node has published the same event, is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fence {
    /// No: it is stored whenever it arrives.
    None,
    /// It is stored only directly after the last event of its subject that this bus knows.
    AfterLast,
    /// The same. Nobody has sent the event before, so it need not wait for the answers to those ahead of it.
    FirstTry,
}

/// An event that arrives, with its headers read (PROTOCOL 3).
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its room.
    pub room: RoomId,
    /// The last token of its subject.
    pub topic: Box<str>,
    /// Its number in the stream.
    pub offset: Offset,
    /// `Sender-Agent-Id`: that agent does not get it.
    pub sender: Option<AgentId>,
    /// `Receiver-Agent-Id`: only that agent gets it.
    pub receiver: Option<AgentId>,
    /// `Is-Internal: true`: no client gets it.
    pub internal: bool,
    /// `Entity-Event-Type`, `-Operation` and `-Sequence-Id`, if all three are there.
    pub entity: Option<(String, String, i64)>,
    /// `traceparent`: the trace that it belongs to. Boxed, because most belong to none.
    pub trace: Option<Box<TraceParent>>,
    /// How long ago it was stored, if known; for `publish_to_push_seconds`.
    pub age: Option<Duration>,
    /// Its body.
    pub body: Bytes,
}

/// An item of the feed.
#[derive(Clone, Debug)]
pub enum BusEvent {
    /// An event.
    Event(Incoming),
    /// Every event up to this offset has been on the feed. If the server stood still for longer than readers wait, one
    /// may come later; it is not lost.
    Watermark(Offset),
    /// Events up to this offset may be missing for good: every view of a room that began before is incomplete.
    Gap(Offset),
    /// The stream was made anew, or put back to an earlier time. Offsets continue from there, later ones of before mean
    /// nothing any more, and no view is complete.
    StreamReset,
}

/// A position in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Names the stream's creation: offsets of another epoch mean nothing.
    pub epoch: String,
    /// The last event's offset.
    pub offset: Offset,
}

/// Events of a replay, or the error that ends it.
pub type Replayed = mpsc::Receiver<Result<Incoming, BusError>>;

/// The result of [`Bus::replay`].
#[derive(Debug)]
pub enum Replay {
    /// The events in order, and the offset up to which they are complete; the channel ends after the last one. If the
    /// rest cannot be read, an error is the last item, so that no part is taken for the whole.
    Events(Replayed, Offset),
    /// Some of it is gone, or the epoch is another.
    Lost,
}

/// The bus. Every call answers within 1.5 s.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// `nats` or `memory`.
    fn name(&self) -> &'static str;
    /// One round trip to the server.
    async fn ping(&self) -> Result<(), BusError>;
    /// Whether an event would be stored and received back: writes one, unless one was stored a moment ago.
    async fn probe(&self) -> Result<(), ProbeError> {
        self.ping().await.map_err(ProbeError::Away)
    }
    /// Publishes in order, many at once; a result for each, in the batch's order. Ok means stored (acknowledged). After
    /// a fenced event that was not stored, no later one of its agent is.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>>;
    /// Publishes events of handlers and of other services, as [`Bus::publish`] does: however many there are, those of
    /// presence do not wait for them. None of them is fenced.
    async fn publish_events(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        self.publish(batch).await
    }
    /// Returns which of these message ids of presence were stored within this time. It may take longer than other
    /// calls. Empty if the bus ends with the process: the relay remembers what it published in this one.
    async fn stored(&self, _ids: &HashSet<String>, _age: Duration) -> Result<HashSet<String>, BusError> {
        Ok(HashSet::new())
    }
    /// Tells the relays of other nodes of this installation that these shards of the outbox have new rows. It may get lost.
    async fn wake_relays(&self, _installation: Uuid, _shards: Shards) {}
    /// What other nodes say with [`Bus::wake_relays`] about these shards. It ends where the connection is given up.
    async fn relay_wakes(&self, _installation: Uuid, _shards: Shards) -> Result<BoxStream<'static, Shards>, BusError> {
        Ok(futures_util::stream::pending().boxed())
    }
    /// After Ok, every event stored in the room reaches the feed. Some of what was stored before may too, with offsets
    /// up to the one in Ok; it is not for new members. If the server is away, the result is Err, but the room is kept:
    /// once the server is back, it is filled from [`Bus::position`] at the time of the call on.
    async fn subscribe(&self, room: &RoomId) -> Result<Offset, BusError>;
    /// Ends the subscription.
    fn unsubscribe(&self, room: &RoomId);
    /// The last position that the stream has confirmed. It may be behind the feed.
    fn position(&self) -> Position;
    /// Waits until one of the bus's tasks has ended; the bus does not work any more then.
    async fn failed(&self) -> TaskEnded {
        std::future::pending().await
    }
    /// Where the stream is now, asked of the stream: everything stored before the call is up to there. If the stream
    /// does not answer within half a second, the last event known: everything on the feed before the call is up to
    /// there.
    async fn end(&self) -> Position;
    /// Before the oldest event that can still be replayed for a while: where events were forgotten already, those that are
    /// about to be are left out.
    async fn oldest(&self) -> Result<Position, BusError>;
    /// Events of these rooms after `after.offset`, merged in order, up to where the stream is now.
    async fn replay(&self, rooms: &[RoomId], after: &Position) -> Result<Replay, BusError>;
    /// The next events of presence of all classrooms after a position, at most `max`; one reader at a time. It may take
    /// longer than other calls.
    ///
    /// # Errors
    /// [`BusError`], also from a bus in the process: it forgets events that a reader may still need.
    async fn presence(&self, _after: &Position, _max: usize) -> Result<PresenceRead, BusError> {
        Err(BusError("events in the process are read from SQL".to_owned()))
    }
    /// The events of presence of one classroom after one offset and through another, at most `max`. It may take longer
    /// than other calls.
    ///
    /// # Errors
    /// As [`Bus::presence`].
    async fn presence_of(
        &self,
        _classroom: ClassroomId,
        _after: Offset,
        _through: Offset,
        _max: usize,
    ) -> Result<Vec<PresenceEvent>, BusError> {
        Err(BusError("events in the process are read from SQL".to_owned()))
    }
}

/// [`Bus::oldest`] of a stream with these events: a 60th of the rest is about to be forgotten.
fn before_oldest(first: u64, last: u64) -> Offset {
    let forgotten = first.saturating_sub(1);
    Offset(if forgotten == 0 { 0 } else { forgotten + last.saturating_sub(forgotten).div_ceil(60) })
}
