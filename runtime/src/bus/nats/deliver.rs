//! The one writer of the feed: live events as they come, and after a break what the stream has of the time between.
//!
//! Invariant: between two breaks the feed is what the flow passes, in that order. At a break the stream is read from where
//! everything has been delivered ([`Seen::floor`]) up to an offset that was asked for after the flow began to pass again,
//! and what was delivered of that already is left out; of what passes from then on, what is later is delivered. So
//! nothing is missing, also of what was on its way late at the break, and nothing comes twice.
use std::{sync::Arc, time::Duration};

use async_nats::Client;
use rollcall_schema::Offset;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    ANSWER, Known,
    fetch::{Reading, Window},
    flow::{Flow, Next},
    rooms::Rooms,
    seen::Seen,
    stream::{self, LookError, State},
};
use crate::{
    bus::{BusError, Fed, Incoming},
    names,
};

/// Between attempts to fill.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the stream's end is asked for while nothing happens. An event that was stored that long ago has come.
const IDLE: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Delivery {
    pub(super) flow: Arc<Flow>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) known: Arc<Known>,
    /// The connection to read the stream on.
    pub(super) work: Client,
    pub(super) feed: mpsc::Sender<Fed>,
    pub(super) seen: Seen,
}

/// Nobody reads the feed any more.
struct Closed;

impl Delivery {
    /// Delivers until nobody reads any more.
    pub(super) async fn run(mut self) {
        let mut idle = interval(IDLE);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The stream's end a while ago, on the same connection.
        let mut end = None;
        loop {
            // Before the look: what comes after it has not come by then.
            let now = Instant::now();
            let outcome = match self.flow.next() {
                Next::Events(events) => self.deliver_all(events).await,
                Next::Broken => {
                    end = None;
                    self.fill().await
                }
                Next::Nothing => self.wait(now, &mut idle, &mut end).await,
            };
            if let Err(Closed) = outcome {
                return;
            }
        }
    }

    /// Nothing happens. A quiet node must know how far the stream is all the same, or it could not tell after an outage
    /// whether what the stream has forgotten since was ever for it.
    async fn wait(&mut self, now: Instant, idle: &mut Interval, end: &mut Option<u64>) -> Result<(), Closed> {
        self.seen.age(self.flow.republished());
        self.settle(now).await?;
        let due = self.seen.due();
        tokio::select! {
            () = self.flow.changed() => {}
            () = self.feed.closed() => return Err(Closed),
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            _ = idle.tick() => {
                end.take().filter(|_| self.flow.is_certain()).into_iter().for_each(|last| self.seen.pass(last));
                *end = stream::look(&self.work).await.ok().map(|state| state.last);
            }
        }
        Ok(())
    }

    async fn deliver_all(&mut self, events: Vec<(Instant, Incoming)>) -> Result<(), Closed> {
        let Some(last) = events.last().map(|(at, _)| *at) else { return Ok(()) };
        for (at, event) in events {
            self.deliver(event, at).await?;
        }
        self.seen.age(self.flow.republished());
        // By the clock of the events' coming: while they wait here, nothing settles that one of them belongs before.
        self.settle(last).await
    }

    async fn deliver(&mut self, event: Incoming, at: Instant) -> Result<(), Closed> {
        let offset = event.offset.0;
        if !self.seen.first(offset, at) {
            return Ok(());
        }
        self.known.raise(offset);
        self.feed.send(Fed::Event(event)).await.map_err(|_| Closed)
    }

    async fn settle(&mut self, now: Instant) -> Result<(), Closed> {
        match self.seen.settle(now) {
            Some(offset) => self.feed.send(Fed::Settled(Offset(offset))).await.map_err(|_| Closed),
            None => Ok(()),
        }
    }

    /// Fills from the stream, as often as it takes.
    async fn fill(&mut self) -> Result<(), Closed> {
        while !self.feed.is_closed() {
            self.flow.resume();
            match self.fill_once().await? {
                Ok(()) => return Ok(()),
                Err(error) => {
                    metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "fill").increment(1);
                    tracing::debug!(%error, "the gap in the feed is not filled yet");
                    self.flow.break_off();
                    sleep(PAUSE).await;
                }
            }
        }
        Err(Closed)
    }

    /// The flow passes already; a connection that breaks from now on breaks it again.
    async fn fill_once(&mut self) -> Result<Result<(), BusError>, Closed> {
        let state = match self.rooms.round().await {
            Ok(state) => state,
            Err(error) => return Ok(Err(self.mend(&error).await)),
        };
        self.compare(&state).await?;
        let after = self.seen.floor();
        if state.last > after {
            let rooms = self.rooms.wanted().into_iter().map(|(room, since)| (room, since.max(after)));
            let mut reading = match Reading::open(&self.work, rooms, state.last).await {
                Ok(reading) => reading,
                Err(error) => return Ok(Err(error)),
            };
            loop {
                match reading.window().await {
                    Ok(Some(window)) => self.deliver_window(window).await?,
                    Ok(None) => break,
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        self.known.raise(state.last);
        self.seen.fill(state.last);
        self.flow.filled();
        self.settle(Instant::now()).await?;
        Ok(Ok(()))
    }

    /// Delivers what is next in the stream: up to there, nothing is missing.
    async fn deliver_window(&mut self, window: Window) -> Result<(), Closed> {
        let now = Instant::now();
        for event in window.events {
            self.deliver(event, now).await?;
        }
        self.seen.fill(window.upto);
        self.settle(now).await
    }

    /// A server that lost its stream gets a new one; all else is waited for.
    async fn mend(&self, error: &LookError) -> BusError {
        if let LookError::Missing = error
            && let Err(error) = stream::ensure(&self.work, ANSWER).await
        {
            return BusError(error.to_string());
        }
        BusError(error.to_string())
    }

    /// Says what the stream cannot give any more.
    async fn compare(&mut self, state: &State) -> Result<(), Closed> {
        let before = self.known.position();
        let after = self.seen.floor();
        let anew = state.epoch != before.epoch;
        let gap = if anew || state.last < self.seen.highest() {
            // Other events have these offsets now. A stream that was put back to an earlier time, or a server that was
            // killed before it had written its latest events, holds nothing that was not delivered.
            let end = if anew { 0 } else { state.last };
            self.known.renew(state.epoch.clone(), end);
            self.rooms.put_back(end);
            self.seen = Seen::new(end);
            Some(Fed::Anew)
        } else if state.last > after && state.first > after + 1 {
            Some(Fed::Gap(Offset(state.first - 1)))
        } else {
            None
        };
        match gap {
            Some(gap) => self.feed.send(gap).await.map_err(|_| Closed),
            None => Ok(()),
        }
    }
}
