//! Events through NATS JetStream (PROTOCOL 3), for many nodes and other services.
//!
//! Three connections: `live` has a subscription for each room, on the republished subjects, and the round trips that prove
//! them; `publish` publishes; `work` reads the stream. So none stands in another's way. The tasks: [`live`] subscribes
//! and passes on what arrives, [`line`] publishes, [`deliver`] writes the feed and fills its gaps, [`watch`] asks the
//! stream where it is, and [`replays`] reads for clients that come back.
//!
//! Invariant: that of [`crate`]. Whatever waits for the server does so with a timeout; the connections come back by
//! themselves, and until then events wait in the stream.
mod backfill;
mod connection;
mod deliver;
mod flight;
mod known;
mod line;
mod live;
mod live_buffer;
mod message;
mod probe;
mod publish;
mod replays;
mod sequence_tracker;
mod servers;
mod stored;
mod stream;
mod stream_scan;
mod subscriptions;
mod watch;
mod wire;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_nats::Client;
use async_trait::async_trait;
use rollcall_schema::{Offset, RoomId};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use self::{
    deliver::Delivery,
    known::Known,
    live::Live,
    live_buffer::LiveBuffer,
    probe::Depth,
    publish::Publisher,
    replays::Replays,
    sequence_tracker::SequenceTracker,
    servers::{PING, Servers},
    subscriptions::Subscriptions,
    watch::Watch,
};
use super::{Bus, BusError, BusEvent, Position, ProbeError, Publication, PublishError, Replay};
use rollcall_base::{
    BackendUrl, names,
    tasks::{TaskEnded, Tasks},
};

/// How long a call takes at most.
const ANSWER: Duration = Duration::from_millis(1400);
/// How long the stream is waited for before its end is taken from the events that were delivered.
const END: Duration = Duration::from_millis(500);
/// How long after a write that was stored no other is needed to know that one would be.
const PROVED: Duration = Duration::from_secs(5);
/// Events on the feed that nobody has read yet.
const FEED: usize = 256;
/// The largest body where nothing else is said, in bytes.
const MAX_BODY: usize = 128 * 1024;

/// Why there is no bus at the start. None has a part of NATS_URL in it, which may hold a password.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NatsError {
    /// Not understood.
    #[error("NATS_URL is not a nats:// or tls:// URL, or several separated by commas")]
    Url,
    /// Nobody answers.
    #[error("NATS does not answer: {0}")]
    Away(String),
    /// Wrong credentials.
    #[error("NATS refuses the user and password, or the token, of NATS_URL")]
    Refused,
    /// JetStream is off.
    #[error("this NATS server has no JetStream: start it with --jetstream")]
    NoJetStream,
    /// The stream is there, and set up otherwise: each setting that differs.
    #[error("the stream CLASSROOM has other settings: {}", .0.join("; "))]
    Settings(Vec<String>),
    /// JetStream refused.
    #[error("the stream CLASSROOM cannot be made: {0}")]
    Stream(String),
    /// The user lacks a right.
    #[error("{0}")]
    Rights(String),
}

/// The bus through NATS.
pub struct NatsBus {
    publisher: Publisher,
    servers: Servers,
    work: Client,
    /// When a probe last found everything well, and what it found otherwise.
    probed: tokio::sync::Mutex<Option<(Instant, Result<(), ProbeError>)>>,
    replays: Replays,
    rooms: Arc<Subscriptions>,
    known: Arc<Known>,
    flow: Arc<LiveBuffer>,
    /// Dropped with the bus, and ended by that.
    _tasks: JoinSet<()>,
    supervisor: Tasks,
}

impl NatsBus {
    /// Connects, makes the stream where it is missing, and returns the bus with its feed.
    ///
    /// # Errors
    /// [`NatsError`], by what the operator has to mend.
    pub async fn connect(url: &str) -> Result<(Self, mpsc::Receiver<BusEvent>), NatsError> {
        Self::connect_to(BackendUrl::new(url), MAX_BODY).await
    }

    /// The same with an address that may be in a file, which is read again for each new connection, and where events with
    /// a body over `max_body` bytes need not be fed.
    ///
    /// # Errors
    /// [`NatsError`], by what the operator has to mend.
    pub async fn connect_to(url: BackendUrl, max_body: usize) -> Result<(Self, mpsc::Receiver<BusEvent>), NatsError> {
        let servers = Servers::new(url, max_body)?;
        let work = servers.connect("rollcall work").await?;
        probe::probe(&servers, Depth::Rights).await.map_err(|error| match error {
            ProbeError::Unable(why) => NatsError::Rights(why),
            ProbeError::Away(error) => NatsError::Away(error.to_string()),
        })?;
        stream::ensure(&work, ANSWER).await?;
        let state = stream::look(&work).await.map_err(|error| NatsError::Away(error.to_string()))?;
        let link = timeout(ANSWER, servers.link()).await;
        let link = link.map_err(|_| NatsError::Away("no answer in time".to_owned()))??;

        let line = servers.open("rollcall publish").await?;

        let known = Arc::new(Known::new(Position { epoch: state.epoch, offset: Offset(state.last) }));
        let (rooms, flow) = (Arc::new(Subscriptions::default()), Arc::new(LiveBuffer::new()));
        let (feed, fed) = mpsc::channel(FEED);
        let live = Live::new(link, servers.clone(), rooms.clone(), flow.clone(), known.clone());
        let delivery = Delivery::new(
            flow.clone(),
            rooms.clone(),
            known.clone(),
            work.clone(),
            feed,
            SequenceTracker::new(state.last),
        );
        let watch = Watch { rooms: rooms.clone(), known: known.clone() };
        let (mut tasks, supervisor) = (JoinSet::new(), Tasks::default());
        tasks.spawn(supervisor.supervise("the live connection to NATS", live.run()));
        tasks.spawn(supervisor.supervise("delivery from NATS", delivery.run()));
        tasks.spawn(supervisor.supervise("the watch on the stream", watch.run()));
        let replays = Replays::start(&work, &rooms, &supervisor, &mut tasks);
        let publisher = Publisher::start(servers.clone(), line, &supervisor, &mut tasks);
        let probed = tokio::sync::Mutex::default();
        Ok((Self { publisher, servers, work, probed, replays, rooms, known, flow, _tasks: tasks, supervisor }, fed))
    }

    /// A round trip on the live connection, shared with whoever asks at the same time.
    async fn round(&self, operation: &'static str) -> Result<stream::State, BusError> {
        self.rooms.round().await.map_err(|error| BusError(error.to_string())).inspect_err(|_| {
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => operation).increment(1);
        })
    }
}

#[async_trait]
impl Bus for NatsBus {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn ping(&self) -> Result<(), BusError> {
        self.round("ping").await.map(drop)
    }

    async fn failed(&self) -> TaskEnded {
        self.supervisor.failed().await
    }

    /// What was stored a moment ago proves the right to write and the room for it; only otherwise something is written.
    async fn probe(&self) -> Result<(), ProbeError> {
        let mut probed = self.probed.lock().await;
        if let Some((at, outcome)) = &*probed
            && at.elapsed() < if outcome.is_ok() { PROVED } else { PING }
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

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        self.publisher.publish(batch).await
    }

    async fn stored(&self, ids: &HashSet<String>, age: Duration) -> Result<HashSet<String>, BusError> {
        stored::find(&self.work, ids, age).await
    }

    async fn subscribe(&self, room: &RoomId) -> Result<Offset, BusError> {
        let wish = self.flow.wish();
        let new = self.rooms.want(room, &self.known);
        let state = self.round("subscribe").await?;
        wish.answered();
        if new {
            // Or a filling would bring what was stored before, and known to nobody here.
            self.rooms.begin(room, state.last, &self.known);
        }
        Ok(Offset(state.last))
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.rooms.drop_room(room);
    }

    fn position(&self) -> Position {
        self.known.position()
    }

    async fn end(&self) -> Position {
        match timeout(END, self.round("end")).await {
            Ok(Ok(state)) => Position { epoch: state.epoch, offset: Offset(state.last) },
            Ok(Err(_)) | Err(_) => self.known.latest(),
        }
    }

    async fn replay(&self, rooms: &[RoomId], after: &Position) -> Result<Replay, BusError> {
        let state = self.round("replay").await?;
        if !state.reaches(after) {
            return Ok(Replay::Lost);
        }
        let events = self.replays.begin(rooms, after, state.last)?;
        Ok(Replay::Events(events, Offset(state.last)))
    }
}
