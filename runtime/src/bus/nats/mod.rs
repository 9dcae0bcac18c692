//! Events through NATS JetStream (PROTOCOL 3), for many nodes and other services.
//!
//! Two connections: `live` has a subscription for each room, on the republished subjects, and the round trips that prove
//! them; `work` publishes and reads the stream, so that neither stands in the other's way. The tasks: [`live`] subscribes
//! and passes on what arrives, [`deliver`] writes the feed and fills its gaps, [`replays`] reads for who comes back.
//!
//! Invariant: that of [`crate::bus`]. Whatever waits for the server does so with a timeout; the connections come back by
//! themselves, and until then events wait in the stream.
mod deliver;
mod fetch;
mod flow;
mod link;
mod live;
mod pass;
mod publish;
mod replays;
mod rooms;
mod seen;
mod servers;
mod stream;
mod wire;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rollcall_schema::{Offset, RoomId};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use self::{
    deliver::Delivery, flow::Flow, live::Live, publish::Publisher, replays::Replays, rooms::Rooms, seen::Seen,
    servers::Servers,
};
use super::{Bus, BusError, Fed, Position, Publication, Replay};
use crate::{
    names,
    tasks::{TaskEnded, Tasks},
};

/// How long a call takes at most.
const ANSWER: Duration = Duration::from_millis(1400);
/// Events on the feed that nobody has read yet.
const FEED: usize = 256;

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
}

/// The position, known to all parts.
struct Known(Mutex<Position>);

impl Known {
    fn position(&self) -> Position {
        self.lock().clone()
    }

    fn raise(&self, offset: u64) {
        let mut position = self.lock();
        position.offset = position.offset.max(Offset(offset));
    }

    fn renew(&self, epoch: String, end: u64) {
        *self.lock() = Position { epoch, offset: Offset(end) };
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bus through NATS.
pub struct NatsBus {
    publisher: Publisher,
    replays: Replays,
    rooms: Arc<Rooms>,
    known: Arc<Known>,
    flow: Arc<Flow>,
    /// Dropped with the bus, and ended by that.
    _tasks: JoinSet<()>,
    supervisor: Tasks,
}

impl NatsBus {
    /// Connects, makes the stream where it is missing, and returns the bus with its feed.
    ///
    /// # Errors
    /// [`NatsError`], by what the operator has to mend.
    pub async fn connect(url: &str) -> Result<(Self, mpsc::Receiver<Fed>), NatsError> {
        let servers = Servers::parse(url)?;
        let work = servers.connect("rollcall work").await?;
        stream::ensure(&work, ANSWER).await?;
        let state = stream::look(&work).await.map_err(|error| NatsError::Away(error.to_string()))?;
        let link = timeout(ANSWER, servers.link()).await;
        let link = link.map_err(|_| NatsError::Away("no answer in time".to_owned()))??;

        let known = Arc::new(Known(Mutex::new(Position { epoch: state.epoch, offset: Offset(state.last) })));
        let (rooms, flow) = (Arc::new(Rooms::default()), Arc::new(Flow::new()));
        let (feed, fed) = mpsc::channel(FEED);
        let live = Live::new(link, servers, rooms.clone(), flow.clone(), known.clone());
        let delivery = Delivery {
            flow: flow.clone(),
            rooms: rooms.clone(),
            known: known.clone(),
            work: work.clone(),
            feed,
            seen: Seen::new(state.last),
        };
        let (mut tasks, supervisor) = (JoinSet::new(), Tasks::default());
        tasks.spawn(supervisor.supervise("the live connection to NATS", live.run()));
        tasks.spawn(supervisor.supervise("delivery from NATS", delivery.run()));
        let replays = Replays::start(&work, &rooms, &supervisor, &mut tasks);
        Ok((Self { publisher: Publisher::new(work), replays, rooms, known, flow, _tasks: tasks, supervisor }, fed))
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

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<Offset, BusError>> {
        self.publisher.publish(batch).await
    }

    async fn subscribe(&self, room: &RoomId) -> Result<(), BusError> {
        let wish = self.flow.wish();
        let new = self.rooms.want(room, self.known.position().offset.0);
        let state = self.round("subscribe").await?;
        wish.answered();
        if new {
            // Or a filling would bring what was stored before, and known to nobody here.
            self.rooms.begin(room, state.last);
        }
        Ok(())
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.rooms.drop_room(room);
    }

    fn position(&self) -> Position {
        self.known.position()
    }

    async fn replay(&self, rooms: &[RoomId], after: &Position, upto: Offset) -> Result<Replay, BusError> {
        let state = self.round("replay").await?;
        if !state.reaches(after) {
            return Ok(Replay::Lost);
        }
        self.replays.begin(rooms, after, upto.0.min(state.last)).map(Replay::Events)
    }
}
