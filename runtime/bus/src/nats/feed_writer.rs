//! The only writer of the feed: live events as they come, and after a break the stream's events of the time between.
//!
//! Invariant: between two breaks the feed is what the live buffer passes, in that order. After a break the stream is
//! read from the offset up to which everything was delivered ([`SequenceTracker::floor`]) to its end, which is asked
//! for after the buffer has resumed. Events of that range that were delivered already are left out; of those that pass
//! meanwhile, the later ones are delivered. So nothing is missing, even if it was late at the break, and nothing comes
//! twice.
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use rollcall_schema::Offset;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    END_TIMEOUT,
    backfill::Backfill,
    live_buffer::{LiveBuffer, Next},
    missing_stream::MissingStream,
    sequence_tracker::{Arrival, SequenceTracker},
    stream::{self, State},
    stream_end::StreamEnd,
    subscriptions::Subscriptions,
    window::Window,
    work_client::WorkClient,
};
use crate::{BusError, BusEvent, Incoming};
use rollcall_base::names;

/// Between two attempts to backfill.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often an idle node asks for the stream's end. An event that was stored this long ago has arrived.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// How far an event may be ahead of the confirmed end. While events arrive, the end is asked for several times a
/// second; an event further ahead waits for the answer.
const MAX_AHEAD: u64 = 32 * 1024;
/// If an event is ahead by more than this, the reason is not that the stream's leader has just changed.
const MAX_LAG: u64 = 1_000_000;
/// Between two backfills because of events that the stream does not confirm.
const MIN_REREAD_INTERVAL: Duration = Duration::from_secs(5);
/// A stream that is behind for this long was put back. A leader that has just been elected may be behind for a moment.
const MAX_BEHIND: Duration = Duration::from_secs(1);
const MAX_BEHIND_IN_CLUSTER: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct FeedWriter {
    buffer: Arc<LiveBuffer>,
    rooms: Arc<Subscriptions>,
    stream_end: Arc<StreamEnd>,
    /// Reads the stream.
    work: WorkClient,
    feed: mpsc::Sender<BusEvent>,
    tracker: SequenceTracker,
    /// Hashes events.
    key: RandomState,
    /// When the stream was last read because of an event that it did not confirm.
    reread: Option<Instant>,
    /// Since when the stream is behind what it has confirmed before.
    behind: Option<Instant>,
    missing: MissingStream,
}

/// The feed's receiver was dropped.
struct Closed;

impl FeedWriter {
    pub(super) fn new(
        buffer: Arc<LiveBuffer>,
        rooms: Arc<Subscriptions>,
        stream_end: Arc<StreamEnd>,
        work: WorkClient,
        feed: mpsc::Sender<BusEvent>,
        tracker: SequenceTracker,
    ) -> Self {
        let (key, missing) = (RandomState::new(), MissingStream::default());
        Self { buffer, rooms, stream_end, work, feed, tracker, key, reread: None, behind: None, missing }
    }

    /// Runs until the feed's receiver is dropped.
    pub(super) async fn run(mut self) {
        let mut idle = interval(IDLE_INTERVAL);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The stream's end, as asked for at the last idle tick.
        let mut end = None;
        loop {
            // Taken before the buffer is read: what arrives later is not in it.
            let now = Instant::now();
            self.confirm_end();
            let outcome = match self.buffer.next() {
                Next::Events(events) => self.deliver_all(events).await,
                Next::Broken => {
                    end = None;
                    self.backfill().await
                }
                Next::Nothing => self.wait(now, &mut idle, &mut end).await,
            };
            if let Err(Closed) = outcome {
                return;
            }
        }
    }

    /// Waits for events. An idle node asks how far the stream is too: after an outage it could not tell otherwise
    /// whether events that the stream has forgotten were for it.
    async fn wait(&mut self, now: Instant, idle: &mut Interval, end: &mut Option<u64>) -> Result<(), Closed> {
        self.tracker.expire(self.buffer.republished());
        self.settle(now).await?;
        let due = self.tracker.due();
        tokio::select! {
            () = self.buffer.changed() => {}
            () = self.feed.closed() => return Err(Closed),
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            _ = idle.tick() => {
                end.take().filter(|_| self.buffer.is_certain()).into_iter().for_each(|last| self.tracker.skip_to(last));
                *end = self.stream_last().await;
            }
        }
        Ok(())
    }

    /// The stream's last offset, if it answers soon: events wait meanwhile.
    async fn stream_last(&self) -> Option<u64> {
        let asked = async { Some(stream::state(&self.work.jetstream().await.ok()?).await.ok()?.last) };
        timeout(END_TIMEOUT, asked).await.ok()?
    }

    async fn deliver_all(&mut self, events: Vec<(Instant, Incoming)>) -> Result<(), Closed> {
        let Some(last) = events.last().map(|(at, _)| *at) else { return Ok(()) };
        for (at, event) in events {
            if self.is_plausible(event.offset.0, at).await {
                self.deliver(event, at, true).await?;
            }
        }
        self.tracker.expire(self.buffer.republished());
        // By the arrival time of the last event: nothing settles while an event that belongs before it waits here.
        self.settle(last).await
    }

    /// Passes the confirmed end to the tracker. Events above it that the stream should know were forged.
    fn confirm_end(&mut self) {
        let [before, _] = self.stream_end.asked();
        let forged = self.tracker.confirm(self.stream_end.confirmed(), before);
        if forged > 0 {
            self.stream_end.forget_delivered();
            metrics::counter!(names::DROPPED, "reason" => "sequence").increment(forged as u64);
        }
    }

    /// Whether the stream may hold this event, which came on the live connection. If the stream must be asked, one
    /// answer does for every event that arrived before the question.
    async fn is_plausible(&mut self, offset: u64, at: Instant) -> bool {
        if offset <= self.stream_end.confirmed().saturating_add(MAX_AHEAD) {
            return true;
        }
        if self.stream_end.asked()[1] <= at {
            // Without an answer it stays unconfirmed.
            let _ = self.rooms.round_trip().await;
        }
        let confirmed = self.stream_end.confirmed();
        if offset <= confirmed.saturating_add(MAX_AHEAD) {
            return true;
        }
        metrics::counter!(names::DROPPED, "reason" => "sequence").increment(1);
        // If it is the stream's after all, the backfill reads it.
        if offset <= confirmed.saturating_add(MAX_LAG)
            && self.reread.is_none_or(|at| at.elapsed() >= MIN_REREAD_INTERVAL)
        {
            self.reread = Some(Instant::now());
            self.buffer.mark_broken();
        }
        false
    }

    /// Delivers an event unless it was delivered before. `live` means that it was not read from the stream.
    async fn deliver(&mut self, event: Incoming, at: Instant, live: bool) -> Result<(), Closed> {
        let offset = event.offset.0;
        let arrival = self.tracker.record(offset, self.key.hash_one((&event.room, &event.body)), at);
        if live && (arrival != Arrival::New || offset > self.stream_end.confirmed()) {
            self.stream_end.request_poll();
        }
        match arrival {
            Arrival::New | Arrival::Conflicting => {
                self.stream_end.note_delivered(offset);
                self.feed.send(BusEvent::Event(event)).await.map_err(|_| Closed)
            }
            Arrival::Stale if live => {
                metrics::counter!(names::DROPPED, "reason" => "sequence").increment(1);
                Ok(())
            }
            Arrival::Duplicate | Arrival::Stale => Ok(()),
        }
    }

    async fn settle(&mut self, now: Instant) -> Result<(), Closed> {
        match self.tracker.settle(now) {
            Some(offset) => self.feed.send(BusEvent::Watermark(Offset(offset))).await.map_err(|_| Closed),
            None => Ok(()),
        }
    }

    /// Backfills from the stream, with retries.
    async fn backfill(&mut self) -> Result<(), Closed> {
        while !self.feed.is_closed() {
            self.buffer.resume();
            match self.backfill_once().await? {
                Ok(()) => return Ok(()),
                Err(error) => {
                    metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "fill").increment(1);
                    tracing::debug!(%error, "the gap in the feed is not backfilled yet");
                    self.buffer.mark_broken();
                    sleep(RETRY_DELAY).await;
                }
            }
        }
        Err(Closed)
    }

    /// The buffer has resumed already; if the connection breaks from now on, it is broken again.
    async fn backfill_once(&mut self) -> Result<Result<(), BusError>, Closed> {
        let state = match self.rooms.round_trip().await {
            Ok(state) => state,
            Err(error) => return Ok(Err(self.missing.recreate(&self.work, &error).await)),
        };
        self.missing.found();
        if let Err(error) = self.check_stream(&state).await? {
            return Ok(Err(error));
        }
        let after = self.tracker.floor();
        if state.last > after {
            let rooms = self.rooms.all().into_iter().map(|(room, since)| (room, since.max(after)));
            let opened = async { Backfill::open(&self.work.jetstream().await?, rooms, state.last).await };
            let mut reading = match opened.await {
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
        self.tracker.filled_through(state.last);
        self.buffer.backfilled();
        self.settle(Instant::now()).await?;
        Ok(Ok(()))
    }

    /// Delivers the next window of the stream: nothing up to its end is missing then.
    async fn deliver_window(&mut self, window: Window) -> Result<(), Closed> {
        let now = Instant::now();
        for event in window.events {
            // How long ago it was stored says how long NATS was away, not how fast this node is.
            self.deliver(Incoming { age: None, ..event }, now, false).await?;
        }
        self.tracker.filled_through(window.through);
        self.settle(now).await
    }

    /// Tells the feed what the stream has lost. An error if the stream is behind and may catch up.
    async fn check_stream(&mut self, state: &State) -> Result<Result<(), BusError>, Closed> {
        let before = self.stream_end.position();
        let after = self.tracker.floor();
        let (anew, behind) = (state.epoch != before.epoch, state.last < before.offset.0);
        let max_behind = if state.leader.is_some() { MAX_BEHIND_IN_CLUSTER } else { MAX_BEHIND };
        if behind && !anew && self.behind.get_or_insert_with(Instant::now).elapsed() < max_behind {
            return Ok(Err(BusError("the stream is behind what it has confirmed before".to_owned())));
        }
        self.behind = None;
        let gap = if anew || behind {
            // Its offsets belong to other events now. A stream that was put back, or whose server was killed before it
            // wrote its latest events, holds nothing that was not delivered.
            let end = if anew { 0 } else { state.last };
            self.stream_end.reset(state.epoch.clone(), end);
            self.stream_end.confirm(state, Instant::now());
            self.rooms.cap_starts(end);
            // The buffer may hold events of the old stream that arrived before this answer: they must not follow the
            // reset.
            self.buffer.discard();
            self.tracker = SequenceTracker::new(end);
            Some(BusEvent::StreamReset)
        } else if state.last > after && state.first > after + 1 {
            // Told once, even if the rest cannot be read yet.
            self.tracker.skip_to(state.first - 1);
            Some(BusEvent::Gap(Offset(state.first - 1)))
        } else {
            None
        };
        if let Some(gap) = gap {
            self.feed.send(gap).await.map_err(|_| Closed)?;
        }
        Ok(Ok(()))
    }
}
