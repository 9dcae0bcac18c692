//! Events of rooms (PROTOCOL 3), behind one trait: NATS JetStream, or a log in process.
//!
//! Invariant: a node has one feed, and on it every event of a subscribed room comes exactly once, without a gap after an
//! outage, and at once: perhaps late, that is after one that is later in the stream. Events of one publisher keep their
//! order. Who needs the stream's order, also across rooms, waits for [`BusEvent::Watermark`]. What cannot be filled any more is
//! said as [`BusEvent::Gap`].
mod headers;
pub mod memory;
pub mod nats;

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rollcall_schema::{AgentId, Offset, RoomId, Subject};
use tokio::sync::mpsc;

use rollcall_base::tasks::TaskEnded;

/// Why the bus did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the bus is away: {0}")]
pub struct BusError(pub String);

/// Why one message is not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The bus is away, full, or does not let us. Whether it was stored is unknown.
    #[error(transparent)]
    Away(BusError),
    /// This message can never be stored.
    #[error("the bus refuses this message: {0}")]
    Refused(String),
    /// It was not stored, because it was late or another event of its subject came before. Whoever still owns the event
    /// tries again at once.
    #[error("another event came before")]
    Behind,
}

impl PublishError {
    /// Whether it says nothing of the bus or the message.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        matches!(self, Self::Behind)
    }
}

/// Why the bus cannot serve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// It is away; events wait.
    #[error(transparent)]
    Away(BusError),
    /// It answers, and somebody has to change something: a right that is missing, a disk that is full.
    #[error("{0}")]
    Unable(String),
}

/// What is published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where.
    pub subject: Subject,
    /// `Nats-Msg-Id`: the same every time that the same event is published.
    pub message_id: Option<String>,
    /// Further headers, in order.
    pub headers: Vec<(&'static str, String)>,
    /// A JSON object.
    pub body: Bytes,
    /// It is stored only directly after the last event of its subject that this bus knows of: then a copy of it that is
    /// delivered late, after another node has published it, is refused.
    pub fenced: bool,
}

/// An event as it arrives, headers already read (PROTOCOL 3).
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The room that it is for.
    pub room: RoomId,
    /// Its place in the stream.
    pub offset: Offset,
    /// `Sender-Agent-Id`: not echoed to that agent.
    pub sender: Option<AgentId>,
    /// `Receiver-Agent-Id`: to that agent only.
    pub receiver: Option<AgentId>,
    /// `Is-Internal: true`: not forwarded.
    pub internal: bool,
    /// `Entity-Event-Type`, `-Operation`, `-Sequence-Id`, where all three are there.
    pub entity: Option<(String, String, i64)>,
    /// When it was stored, where known: how long ago, for `publish_to_push_seconds`.
    pub age: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

/// What comes on the feed.
#[derive(Clone, Debug)]
pub enum BusEvent {
    /// An event.
    Event(Incoming),
    /// Every event up to this offset has been on the feed. One may come later still, where the server stood for longer
    /// than anybody waits; it is not lost for that.
    Watermark(Offset),
    /// Events up to this offset may be missing and cannot be had any more: every view of a room that began before is
    /// incomplete.
    Gap(Offset),
    /// The stream was made anew, or put back to an earlier time: offsets go on from there, later ones that were given
    /// before mean nothing any more, and no view is complete.
    StreamReset,
}

/// Where the stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Names the stream's creation: offsets of another epoch mean nothing.
    pub epoch: String,
    /// The last event's.
    pub offset: Offset,
}

/// Events of a replay, or the reason why the rest does not come.
pub type Replayed = mpsc::Receiver<Result<Incoming, BusError>>;

/// What was missed.
#[derive(Debug)]
pub enum Replay {
    /// The events in order, and up to where they are all; the channel ends after the last one. An error is the last item:
    /// the rest cannot be had now, and who is told nothing would take the part for the whole.
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
    /// Whether an event would be stored and heard back: a write, unless one was stored a moment ago.
    async fn probe(&self) -> Result<(), ProbeError> {
        self.ping().await.map_err(ProbeError::Away)
    }
    /// Publishes in order, many in flight; a result for each, in the batch's order. Ok means stored (acknowledged). After
    /// a fenced event that was not stored, no later one of its subject is.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>>;
    /// Those of these message ids of presence that were stored within this time. It may take longer than other calls.
    /// None where the bus ends with the process: the relay remembers what it published in this one.
    async fn stored(&self, _ids: &HashSet<String>, _age: Duration) -> Result<HashSet<String>, BusError> {
        Ok(HashSet::new())
    }
    /// From Ok on, whatever is stored in the room reaches the feed; so may a part of what was stored before, which is not
    /// for who comes now: its offsets are not after the one in Ok. Where the server is away it is Err, but the wish is kept
    /// and fulfilled on its return, from [`Bus::position`] at the time of the call on.
    async fn subscribe(&self, room: &RoomId) -> Result<Offset, BusError>;
    /// Ends it.
    fn unsubscribe(&self, room: &RoomId);
    /// The last position that the stream itself has told. It may be behind what has come on the feed.
    fn position(&self) -> Position;
    /// Waits until one of its tasks has ended; it does not work any more then.
    async fn failed(&self) -> TaskEnded {
        std::future::pending().await
    }
    /// Where the stream is now, asked of the stream: what has been stored before the call is not after it. Where the
    /// stream does not answer within half a second, the last event known: whatever has been on the feed before the call is
    /// not after it either.
    async fn end(&self) -> Position;
    /// Events of these rooms after `after.offset`, merged in order, up to where the stream is now.
    async fn replay(&self, rooms: &[RoomId], after: &Position) -> Result<Replay, BusError>;
}
