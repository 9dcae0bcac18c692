//! The only writer of the feed: it writes live events as they come, and after a break the events that the stream stored
//! meanwhile.
//!
//! Invariant: between two breaks the feed has the events of the live buffer, in that order. After a break the stream is
//! read from the offset through which everything was delivered ([`SequenceTracker::floor`]) to its end, which is asked
//! for after the buffer has resumed. Events in that range that were delivered already are left out. Of the events that
//! the buffer passes meanwhile, those after the range are delivered. So no event is missing, even if it was late at the
//! break, and none comes twice.
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
use crate::{BusError, BusEvent, Incoming, Position};
use rollcall_base::names;

/// The time between two attempts to backfill.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often an idle node asks for the stream's end. An event that was stored before one question counts as arrived at
/// the next one.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// How many offsets an event may be ahead of the confirmed end. While events arrive, the end is asked for several times
/// a second. An event that is further ahead waits for the next answer.
const MAX_AHEAD: u64 = 32 * 1024;
/// After a change of its leader the stream may be behind its own events for a moment, but never by more than this. An
/// event that is further ahead of the end was forged, so the stream is not read because of it.
const MAX_LAG: u64 = 1_000_000;
/// The shortest time between two backfills because of events that the stream does not confirm.
const MIN_REREAD_INTERVAL: Duration = Duration::from_secs(5);
/// A stream that is behind for this long was put back to an earlier time. A leader that has just been elected may be
/// behind for a moment.
const MAX_BEHIND: Duration = Duration::from_secs(1);
const MAX_BEHIND_IN_CLUSTER: Duration = Duration::from_secs(5);

/// The task that writes the feed.
pub(super) struct FeedWriter {
    buffer: Arc<LiveBuffer>,
    rooms: Arc<Subscriptions>,
    stream_end: Arc<StreamEnd>,
    /// The connection for reading the stream.
    work: WorkClient,
    feed: mpsc::Sender<BusEvent>,
    tracker: SequenceTracker,
    /// The key of the hashes of events.
    key: RandomState,
    /// When the stream was last read because it did not confirm an event.
    reread: Option<Instant>,
    /// Since when the stream is behind an end that it confirmed before.
    behind: Option<Instant>,
    missing: MissingStream,
}

/// The receiver of the feed was dropped.
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

    /// Runs until the receiver of the feed is dropped.
    pub(super) async fn run(mut self) {
        let mut idle = interval(IDLE_INTERVAL);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The stream's end at the last idle tick.
        let mut end = None;
        loop {
            // The time is taken before the buffer is read, so events that arrive later are not counted.
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

    /// Waits for events. An idle node also asks for the stream's end. Otherwise it could not tell after an outage
    /// whether events that the stream has forgotten were for this node.
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

    /// Returns the stream's last offset, if the stream answers soon. Events wait meanwhile.
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
        // The arrival of the last event counts as the time: while an event waits in this batch, no later event may
        // settle before it.
        self.settle(last).await
    }

    /// Passes the confirmed end to the tracker. An event above it that the stream should know of was forged.
    fn confirm_end(&mut self) {
        let [before, _] = self.stream_end.asked();
        let forged = self.tracker.confirm(self.stream_end.confirmed(), before);
        if forged > 0 {
            self.stream_end.forget_delivered();
            metrics::counter!(names::DROPPED, "reason" => "sequence").increment(forged as u64);
        }
    }

    /// Returns whether the stream may hold this event, which came on the live connection. If the stream must be asked,
    /// one answer serves every event that arrived before the question.
    async fn is_plausible(&mut self, offset: u64, at: Instant) -> bool {
        if offset <= self.stream_end.confirmed().saturating_add(MAX_AHEAD) {
            return true;
        }
        if self.stream_end.asked()[1] <= at {
            // Without an answer the event stays unconfirmed.
            let _ = self.rooms.round_trip().await;
        }
        let confirmed = self.stream_end.confirmed();
        if offset <= confirmed.saturating_add(MAX_AHEAD) {
            return true;
        }
        metrics::counter!(names::DROPPED, "reason" => "sequence").increment(1);
        // If the event is the stream's after all, the backfill reads it.
        if offset <= confirmed.saturating_add(MAX_LAG)
            && self.reread.is_none_or(|at| at.elapsed() >= MIN_REREAD_INTERVAL)
        {
            self.reread = Some(Instant::now());
            self.buffer.mark_broken();
        }
        false
    }

    /// Delivers an event unless it was delivered before. `live` says that it came on the live connection.
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

    /// Backfills once. The buffer has resumed already; if the connection breaks from here on, the buffer is marked as
    /// broken again.
    async fn backfill_once(&mut self) -> Result<Result<(), BusError>, Closed> {
        // The position is read before the question is asked, because later answers may have raised it by the time that
        // this task reads the answer.
        let before = self.stream_end.position();
        let state = match self.rooms.round_trip().await {
            Ok(state) => state,
            Err(error) => return Ok(Err(self.missing.recreate(&self.work, &error).await)),
        };
        self.missing.found();
        if let Err(error) = self.check_stream(&before, &state).await? {
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
            if let Err(error) = self.check_read(after, &state).await? {
                return Ok(Err(error));
            }
        }
        self.tracker.filled_through(state.last);
        self.buffer.backfilled();
        self.settle(Instant::now()).await?;
        Ok(Ok(()))
    }

    /// Delivers the next window of the stream. After it, no event through the window's end is missing.
    async fn deliver_window(&mut self, window: Window) -> Result<(), Closed> {
        let now = Instant::now();
        for event in window.events {
            // The age says how long NATS was away, and not how fast this node is, so it is left out.
            self.deliver(Incoming { age: None, ..event }, now, false).await?;
        }
        self.tracker.filled_through(window.through);
        self.settle(now).await
    }

    /// Checks whether the stream still was the same after it was read from this offset to the end in `state`. Tells the
    /// feed if the stream may have forgotten some of the events before they were read.
    async fn check_read(&mut self, after: u64, state: &State) -> Result<Result<(), BusError>, Closed> {
        let now = match self.rooms.round_trip().await {
            Ok(now) => now,
            Err(error) => return Ok(Err(BusError(error.to_string()))),
        };
        if now.epoch != state.epoch || now.last < state.last {
            return Ok(Err(BusError("the stream was created again or put back while it was read".to_owned())));
        }
        if now.first > after + 1 {
            self.feed.send(BusEvent::Gap(Offset(now.first - 1))).await.map_err(|_| Closed)?;
        }
        Ok(Ok(()))
    }

    /// Tells the feed which events the stream has lost since the position `before`. Returns an error if the stream is
    /// behind that position and may catch up.
    async fn check_stream(&mut self, before: &Position, state: &State) -> Result<Result<(), BusError>, Closed> {
        let after = self.tracker.floor();
        let (anew, behind) = (state.epoch != before.epoch, state.last < before.offset.0);
        let max_behind = if state.leader.is_some() { MAX_BEHIND_IN_CLUSTER } else { MAX_BEHIND };
        if behind && !anew && self.behind.get_or_insert_with(Instant::now).elapsed() < max_behind {
            return Ok(Err(BusError("the stream is behind what it has confirmed before".to_owned())));
        }
        self.behind = None;
        let gap = if anew || behind {
            // The offsets belong to other events now. A stream that was put back, or whose server was killed before it
            // wrote its latest events, holds only events that were delivered.
            let end = if anew { 0 } else { state.last };
            self.stream_end.reset(state.epoch.clone(), end);
            self.stream_end.confirm(state, Instant::now());
            self.rooms.cap_starts(end);
            // The buffer may hold events of the old stream that arrived before this answer. They must not follow the
            // reset.
            self.buffer.discard();
            self.tracker = SequenceTracker::new(end);
            Some(BusEvent::StreamReset)
        } else if state.last > after && state.first > after + 1 {
            // The gap is reported once, even if the rest cannot be read yet.
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

#[cfg(test)]
mod tests;
