//! Replays: reads the events that connections missed, for many connections at once.
//!
//! After a node has died or a server was restarted, thousands of clients come back at once. If each replay were read
//! alone, the server would read the same events for each of them. If they are read together, the server reads the
//! events once. Requests that go far back share a second reader, so that they delay no others.
//!
//! Invariant: each request gets its events in order, and the channel ends only after all of them. The replay of a
//! receiver that is too slow for the others is read alone, at its own pace. The number of waiting requests is bounded;
//! further requests are refused.
use std::{collections::HashMap, sync::Arc};

use rollcall_schema::{Offset, RoomId};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
};

use super::{
    backfill::Backfill,
    stream::State,
    subscriptions::Subscriptions,
    window::Window,
    work_client::{JetStream, WorkClient},
};
use crate::{BusError, Incoming, Position, Replayed};
use rollcall_base::{names, tasks::Tasks};

/// How many requests are read together.
const MAX_BATCH: usize = 2048;
/// The maximum number of requests that wait.
const MAX_WAITING: usize = 16 * 1024;
/// How many events a replay may be ahead of its receiver.
const MAX_AHEAD: usize = 512;
/// A request that goes back over more events than this counts as far.
const MAX_NEAR: u64 = 50_000;

/// One connection's request.
struct Request {
    rooms: Vec<RoomId>,
    after: Position,
    through: u64,
    /// Every event through this offset was sent.
    sent: Offset,
    events: mpsc::Sender<Result<Incoming, BusError>>,
}

/// The two readers of replays.
pub(super) struct Replays {
    near: mpsc::Sender<Request>,
    far: mpsc::Sender<Request>,
}

impl Replays {
    /// Starts both readers, which end with `tasks`.
    pub(super) fn start(
        client: &WorkClient,
        rooms: &Arc<Subscriptions>,
        supervisor: &Tasks,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let mut reader = || {
            let (requests, waiting) = mpsc::channel(MAX_WAITING);
            tasks.spawn(supervisor.supervise("replays from NATS", serve(client.clone(), rooms.clone(), waiting)));
            requests
        };
        Self { near: reader(), far: reader() }
    }

    /// Begins a replay of these rooms after a position that the stream still covers.
    pub(super) fn begin(&self, rooms: &[RoomId], after: &Position, through: u64) -> Result<Replayed, BusError> {
        let (events, replayed) = mpsc::channel(MAX_AHEAD);
        let reader = if through.saturating_sub(after.offset.0) <= MAX_NEAR { &self.near } else { &self.far };
        let request = Request { rooms: rooms.to_vec(), after: after.clone(), through, sent: after.offset, events };
        reader.try_send(request).map_err(|_| failed(BusError("too many replays wait".to_owned())))?;
        Ok(replayed)
    }
}

async fn serve(client: WorkClient, rooms: Arc<Subscriptions>, mut waiting: mpsc::Receiver<Request>) {
    let mut requests = Vec::with_capacity(MAX_BATCH);
    while waiting.recv_many(&mut requests, MAX_BATCH).await > 0 {
        ReplayBatch::new(requests.drain(..)).read(&client, &rooms).await;
    }
}

/// Requests that are read together.
struct ReplayBatch {
    requests: HashMap<usize, Request>,
    /// The requests that want each room.
    by_room: HashMap<RoomId, Vec<usize>>,
}

impl ReplayBatch {
    fn new(requests: impl Iterator<Item = Request>) -> Self {
        let requests: HashMap<usize, Request> = requests.enumerate().collect();
        let mut by_room: HashMap<RoomId, Vec<usize>> = HashMap::new();
        for (number, request) in &requests {
            for room in &request.rooms {
                by_room.entry(room.clone()).or_default().push(*number);
            }
        }
        Self { requests, by_room }
    }

    async fn read(mut self, client: &WorkClient, rooms: &Arc<Subscriptions>) {
        if let Err(error) = self.read_all(client, rooms).await {
            let error = failed(error);
            for Request { events, .. } in self.requests.into_values() {
                let error = error.clone();
                // The receiver must get the error, because otherwise it would take some of the events for all of them.
                tokio::spawn(async move { events.send(Err(error)).await.ok() });
            }
        }
    }

    async fn read_all(&mut self, client: &WorkClient, rooms: &Arc<Subscriptions>) -> Result<(), BusError> {
        let jetstream = client.jetstream().await?;
        let first = |numbers: &Vec<usize>| numbers.iter().map(|number| self.requests[number].sent.0).min();
        let from = self.by_room.iter().filter_map(|(room, numbers)| Some((room.clone(), first(numbers)?)));
        let through = self.requests.values().map(|request| request.through).max().unwrap_or_default();
        let mut reading = Backfill::open(&jetstream, from, through).await?;
        while !self.requests.is_empty()
            && let Some(window) = reading.window().await?
        {
            self.deliver(window, &jetstream, rooms);
        }
        self.end(rooms).await
    }

    fn deliver(&mut self, window: Window, jetstream: &JetStream, rooms: &Arc<Subscriptions>) {
        for event in window.events {
            let offset = event.offset;
            for number in self.by_room.get(&event.room).into_iter().flatten() {
                let Some(request) = self.requests.get_mut(number) else { continue };
                if offset <= request.sent || offset.0 > request.through {
                    continue;
                }
                match request.events.try_send(Ok(event.clone())) {
                    Ok(()) => request.sent = offset,
                    Err(TrySendError::Full(_)) => {
                        let slow = self.requests.remove(number);
                        slow.into_iter()
                            .for_each(|slow| drop(tokio::spawn(slow.read_alone(jetstream.clone(), rooms.clone()))));
                    }
                    Err(TrySendError::Closed(_)) => drop(self.requests.remove(number)),
                }
            }
        }
    }

    async fn end(&mut self, rooms: &Subscriptions) -> Result<(), BusError> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let state = state(rooms).await?;
        self.requests.retain(|_, request| !state.covers(&request.after));
        if self.requests.is_empty() { Ok(()) } else { Err(forgotten()) }
    }
}

impl Request {
    /// Sends events as fast as the receiver reads, until the end or until it is dropped.
    async fn read_alone(self, jetstream: JetStream, rooms: Arc<Subscriptions>) {
        if let Err(error) = self.read(jetstream, &rooms).await {
            self.events.send(Err(failed(error))).await.ok();
        }
    }

    async fn read(&self, jetstream: JetStream, rooms: &Subscriptions) -> Result<(), BusError> {
        let from = self.rooms.iter().map(|room| (room.clone(), self.sent.0));
        let mut reading = Backfill::open(&jetstream, from, self.through).await?;
        while let Some(window) = reading.window().await? {
            for event in window.events {
                if self.events.send(Ok(event)).await.is_err() {
                    return Ok(());
                }
            }
        }
        if state(rooms).await?.covers(&self.after) { Ok(()) } else { Err(forgotten()) }
    }
}

/// Returns the state of the stream after the read. Events that the stream has forgotten meanwhile may have been among
/// the requested ones.
async fn state(rooms: &Subscriptions) -> Result<State, BusError> {
    rooms.round_trip().await.map_err(|error| BusError(error.to_string()))
}

fn forgotten() -> BusError {
    BusError("the stream does not reach back that far any more".to_owned())
}

fn failed(error: BusError) -> BusError {
    metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "replay").increment(1);
    error
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream;
    use rollcall_loadtest::servers::Nats;
    use rollcall_schema::LessonId;

    use crate::{Bus, nats::NatsBus};

    use super::*;

    #[tokio::test]
    async fn what_is_forgotten_before_it_is_read_is_told_at_the_end() {
        let server = Nats::start().expect("a server");
        let (bus, _feed) = NatsBus::connect(&server.url()).await.expect("a bus");
        let context = jetstream::new(async_nats::connect(server.url()).await.expect("a client"));
        let room = RoomId::Lesson(LessonId::parse("algebra-1").expect("a lesson"));
        for _ in 0..9 {
            let stored = context.publish(format!("{room}.note"), "{}".into()).await.expect("sent");
            stored.await.expect("stored");
        }
        let stream = context.get_stream_no_info("CLASSROOM").await.expect("the stream");
        stream.purge().sequence(6).await.expect("purged");
        let after = Position { offset: Offset(2), ..bus.position() };
        let mut events = bus.replays.begin(&[room], &after, 9).expect("begun");
        let (mut offsets, mut failed) = (Vec::new(), false);
        while let Some(event) = events.recv().await {
            match event {
                Ok(event) => offsets.push(event.offset.0),
                Err(_) => failed = true,
            }
        }
        assert_eq!((&offsets[..], failed), (&[6, 7, 8, 9][..], true));
    }
}
