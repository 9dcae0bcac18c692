//! Events through NATS JetStream (PROTOCOL 3), for many nodes and other services.
//!
//! There are four connections, so that none delays another. `live` has a subscription for each room, on the republished
//! subjects, and makes the round trips that prove them. `publish` publishes presence. `events` publishes the events of
//! handlers and other services. `work` asks the stream; whoever reads many events from it has one more connection. The
//! tasks are: [`live_connection`] subscribes and passes on events, [`publish_connection`] publishes, [`feed_writer`]
//! writes the feed and fills its gaps, [`end_poller`] asks for the stream's end, and [`replays`] reads for clients that
//! come back.
//!
//! Invariant: the invariant of [`crate`] holds. Every wait for the server has a timeout. Broken connections are
//! replaced, and until then events wait in the stream.
mod backfill;
mod connection;
mod credentials;
mod end_poller;
mod error;
mod feed_writer;
mod in_flight;
mod live_buffer;
mod live_connection;
mod message;
mod missing_stream;
mod next_event;
mod options;
mod presence_reader;
mod probe;
mod publish_connection;
mod publisher;
mod questions;
mod read_consumer;
mod refusals;
mod relay_wakes;
mod replays;
mod sequence_tracker;
mod servers;
mod stored_ids;
mod stream;
mod stream_end;
mod stream_scan;
mod subject_queue;
mod subscriptions;
mod tls;
mod window;
mod wire;
mod work_client;

use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rollcall_schema::{ClassroomId, Offset, RoomId, Shards};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use uuid::Uuid;

use self::{
    end_poller::EndPoller,
    feed_writer::FeedWriter,
    live_buffer::LiveBuffer,
    live_connection::LiveConnection,
    presence_reader::PresenceReader,
    probe::Depth,
    publisher::{Names, Publisher},
    replays::Replays,
    sequence_tracker::SequenceTracker,
    servers::{PING_INTERVAL, Servers},
    stream_end::StreamEnd,
    subscriptions::Subscriptions,
    work_client::WorkClient,
};
use super::{
    Bus, BusError, BusEvent, Position, PresenceEvent, PresenceRead, ProbeError, Publication, PublishError, Replay,
    before_oldest,
};
use rollcall_base::{
    names,
    tasks::{TaskEnded, Tasks},
};

pub use credentials::check_credentials;
pub use error::NatsError;
pub use options::{DUPLICATE_WINDOW, NatsOptions, StreamOptions};

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_millis(1400);
/// How long the bus may take at the start to find a server that accepts a connection.
const START_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a caller waits for the stream's end. After that it gets the offset of the last event delivered.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// For this long after an event was stored, a probe need not write one.
const PROVED: Duration = Duration::from_secs(5);
/// The maximum number of unread events of the feed.
const FEED: usize = 256;
/// The bus through NATS.
pub struct NatsBus {
    publisher: Publisher,
    /// The publisher of events other than those of presence.
    event_publisher: Publisher,
    servers: Servers,
    work: WorkClient,
    /// When the last probe ran, and its result.
    probed: tokio::sync::Mutex<Option<(Instant, Result<(), ProbeError>)>>,
    replays: Replays,
    presence: PresenceReader,
    rooms: Arc<Subscriptions>,
    stream_end: Arc<StreamEnd>,
    buffer: Arc<LiveBuffer>,
    /// The tasks, which end when the bus is dropped.
    _tasks: JoinSet<()>,
    supervisor: Tasks,
}

impl NatsBus {
    /// Connects, makes the stream if it is missing, and returns the bus with its feed.
    ///
    /// # Errors
    /// Returns a [`NatsError`], which says what the operator must change.
    pub async fn connect(url: &str) -> Result<(Self, mpsc::Receiver<BusEvent>), NatsError> {
        Self::connect_with(NatsOptions::new(url)).await
    }

    /// Connects as [`Self::connect`] does, with these options.
    ///
    /// # Errors
    /// Returns a [`NatsError`], which says what the operator must change.
    pub async fn connect_with(options: NatsOptions) -> Result<(Self, mpsc::Receiver<BusEvent>), NatsError> {
        let servers = Servers::new(options)?;
        // The first connection is a [`NatsConnection`], because its errors say best what to change.
        let connection = timeout(START_TIMEOUT, servers.open_live()).await;
        let connection = connection.map_err(|_| NatsError::Away("no answer in time".to_owned()))??;
        let work = WorkClient::connect(&servers).await?;
        let away = |error: BusError| NatsError::Away(error.to_string());
        let jetstream = work.jetstream().await.map_err(away)?;
        // Only a node that makes the stream needs the right to do so.
        let create = stream::state(&jetstream).await.is_err();
        probe::probe(&servers, Depth::Rights { create }).await.map_err(|error| match error {
            ProbeError::Unable(why) => NatsError::Rights(why),
            ProbeError::Away(error) => away(error),
        })?;
        stream::ensure(&jetstream).await?;
        let state = stream::state(&jetstream).await.map_err(|error| NatsError::Away(error.to_string()))?;
        read_consumer::check(&jetstream).await.map_err(|error| NatsError::Stream(error.0))?;

        let (mut tasks, supervisor) = (JoinSet::new(), Tasks::default());
        let names = Names { connection: "rollcall publish", task: "publishing to NATS" };
        let publisher = Publisher::start(&servers, names, &supervisor, &mut tasks).await?;
        let names = Names { connection: "rollcall events", task: "publishing handlers' events to NATS" };
        let event_publisher = Publisher::start(&servers, names, &supervisor, &mut tasks).await?;

        let last = state.last;
        let stream_end = Arc::new(StreamEnd::new(state));
        let (rooms, buffer) = (Arc::new(Subscriptions::default()), Arc::new(LiveBuffer::new()));
        let (feed, events) = mpsc::channel(FEED);
        let live = LiveConnection::new(connection, servers.clone(), rooms.clone(), buffer.clone(), stream_end.clone());
        let writer = FeedWriter::new(
            buffer.clone(),
            rooms.clone(),
            stream_end.clone(),
            work.clone(),
            feed,
            SequenceTracker::new(last),
        );
        let poller = EndPoller { rooms: rooms.clone(), stream_end: stream_end.clone() };
        tasks.spawn(supervisor.supervise("the live connection to NATS", live.run()));
        tasks.spawn(supervisor.supervise("delivery from NATS", writer.run()));
        tasks.spawn(supervisor.supervise("the watch on the stream", poller.run()));
        let replays = Replays::start(&work, &rooms, &supervisor, &mut tasks);
        let presence = PresenceReader::new(work.clone());
        let bus = Self {
            publisher,
            event_publisher,
            servers,
            work,
            probed: tokio::sync::Mutex::default(),
            replays,
            presence,
            rooms,
            stream_end,
            buffer,
            _tasks: tasks,
            supervisor,
        };
        Ok((bus, events))
    }

    /// Makes a round trip on the live connection, which concurrent callers share.
    async fn round_trip(&self, operation: &'static str) -> Result<stream::State, BusError> {
        self.rooms.round_trip().await.map_err(|error| BusError(error.to_string())).inspect_err(|_| {
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => operation).increment(1);
        })
    }

    /// Proves the right to write, and that there is room. An event that was stored recently is such a proof. Otherwise
    /// a probe writes an event.
    async fn probe_writes(&self) -> Result<(), ProbeError> {
        let mut probed = self.probed.lock().await;
        if let Some((at, outcome)) = &*probed
            && at.elapsed() < if outcome.is_ok() { PROVED } else { PING_INTERVAL }
        {
            return outcome.clone();
        }
        let heard = matches!(&*probed, Some((_, Ok(()))));
        let outcome = if heard && self.publisher.stored_within(PROVED) {
            self.ping().await.map_err(ProbeError::Away)
        } else {
            probe::probe(&self.servers, Depth::Write).await
        };
        *probed = Some((Instant::now(), outcome.clone()));
        outcome
    }
}

#[async_trait]
impl Bus for NatsBus {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn ping(&self) -> Result<(), BusError> {
        self.round_trip("ping").await.map(drop)
    }

    async fn failed(&self) -> TaskEnded {
        self.supervisor.failed().await
    }

    async fn probe(&self) -> Result<(), ProbeError> {
        let (outcome, differences) = (self.probe_writes().await, self.stream_end.broken_settings());
        if differences.is_empty() {
            return outcome;
        }
        let stream = self.servers.options().stream.name.clone();
        let settings = NatsError::Settings { stream, differences };
        // A stream without one of its subjects gives no answer to a message there.
        let said = outcome.err().map(|error| format!("{error}; ")).unwrap_or_default();
        Err(ProbeError::Unable(format!("{said}{settings}")))
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        self.publisher.publish(batch).await
    }

    async fn publish_events(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        self.event_publisher.publish(batch).await
    }

    async fn stored(&self, ids: &HashSet<String>, age: Duration) -> Result<HashSet<String>, BusError> {
        stored_ids::find(&self.work.jetstream().await?, ids, age).await
    }

    async fn wake_relays(&self, installation: Uuid, shards: Shards) {
        if let Some(client) = self.work.connected() {
            relay_wakes::tell(&client, installation, shards).await;
        }
    }

    async fn relay_wakes(&self, installation: Uuid, shards: Shards) -> Result<BoxStream<'static, Shards>, BusError> {
        relay_wakes::listen(self.work.jetstream().await?.client(), installation, shards).await
    }

    async fn subscribe(&self, room: &RoomId) -> Result<Offset, BusError> {
        let pending = self.buffer.pend();
        let new = self.rooms.add(room, &self.stream_end);
        self.round_trip("subscribe").await?;
        pending.answered();
        // For a new room, a backfill would otherwise bring older events, of which no client here knows.
        Ok(Offset(if new { self.rooms.begin(room, &self.stream_end) } else { self.stream_end.confirmed() }))
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.rooms.remove(room);
    }

    fn followers(&self) -> &AtomicUsize {
        &self.stream_end.followers
    }

    fn position(&self) -> Position {
        self.stream_end.position()
    }

    async fn end(&self) -> Position {
        match timeout(END_TIMEOUT, self.round_trip("end")).await {
            Ok(Ok(state)) => Position { epoch: state.epoch, offset: Offset(state.last) },
            Ok(Err(_)) | Err(_) => self.stream_end.latest(),
        }
    }

    async fn oldest(&self) -> Result<Position, BusError> {
        let state = self.round_trip("oldest").await?;
        Ok(Position { epoch: state.epoch, offset: before_oldest(state.first, state.last, state.forgets) })
    }

    async fn replay(&self, rooms: &[RoomId], after: &Position) -> Result<Replay, BusError> {
        let state = self.round_trip("replay").await?;
        if !state.covers(after) {
            return Ok(Replay::Lost);
        }
        let events = self.replays.begin(rooms, after, state.last)?;
        Ok(Replay::Events(events, Offset(state.last)))
    }

    async fn presence(&self, after: &Position, max: usize) -> Result<PresenceRead, BusError> {
        self.presence.read(after, max).await
    }

    async fn presence_of(
        &self,
        classroom: ClassroomId,
        after: &Position,
        through: Offset,
        max: usize,
    ) -> Result<Vec<PresenceEvent>, BusError> {
        self.presence.read_one(classroom, after, through, max).await
    }
}
