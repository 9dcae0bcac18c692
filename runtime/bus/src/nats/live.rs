//! The live connection: subscribes to the rooms, passes on what comes for them, and carries the round trips that prove
//! subscriptions and say where the stream is.
//!
//! Why that is enough: a room's SUB is on the wire before the question for the stream's state, and both are on one
//! connection. What the stream holds when it answers can be read from it; what is stored afterwards finds the
//! subscription there. The republished copy of an event may come before the answer that counts it or after, early or
//! late: [`super::sequence_tracker::SequenceTracker`] tells whether it was delivered.
//!
//! Invariant: events are passed on in the order of the wire, those of one connection until it breaks; a break is said to
//! the flow before anything of the next connection passes.
use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use rollcall_schema::{Offset, Sid, subject::LIVE_PREFIX};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    ANSWER,
    connection::{LinkError, NatsConnection},
    known::Known,
    live_buffer::LiveBuffer,
    servers::{PING, Servers},
    stream::{self, LookError},
    subscriptions::{Subscriptions, Waiter},
    wire::{self, Message, Op},
};
use crate::{Incoming, headers};
use rollcall_base::names;

/// A server that leaves so many of our pings unanswered is given up.
const UNANSWERED: u32 = 3;
/// The subscription for answers; those of rooms have higher numbers.
const INBOX: u64 = 0;

/// See the module.
pub(super) struct Live {
    link: NatsConnection,
    servers: Servers,
    rooms: Arc<Subscriptions>,
    flow: Arc<LiveBuffer>,
    known: Arc<Known>,
    /// Where answers come; its last token is the question's number.
    inbox: String,
    asked: u64,
    question: Option<Question>,
    unanswered: u32,
}

/// A round trip under way.
struct Question {
    since: Instant,
    waiters: Vec<Waiter>,
}

impl Live {
    pub(super) fn new(
        link: NatsConnection,
        servers: Servers,
        rooms: Arc<Subscriptions>,
        flow: Arc<LiveBuffer>,
        known: Arc<Known>,
    ) -> Self {
        // Before the task runs: who asks now waits for it.
        rooms.connected();
        let inbox = format!("_INBOX.{}.", Sid::random());
        Self { link, servers, rooms, flow, known, inbox, asked: 0, question: None, unanswered: 0 }
    }

    /// Runs until it is dropped, on one connection after another.
    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.serve().await;
            tracing::warn!(%error, "the live connection to NATS broke");
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "live").increment(1);
            self.known.trust_heard();
            self.flow.break_off();
            self.rooms.disconnected();
            self.question = None;
            self.link = self.servers.link_again().await;
            self.rooms.connected();
        }
    }

    async fn serve(&mut self) -> Result<Infallible, LinkError> {
        let mut clock = interval(PING);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.unanswered = 0;
        self.link.write(format!("SUB {}* {INBOX}\r\n", self.inbox).as_bytes()).await?;
        loop {
            tokio::select! {
                read = self.link.read() => {
                    read?;
                    if self.take()? {
                        self.link.write(b"PONG\r\n").await?;
                    }
                }
                () = self.rooms.changed() => {}
                _ = clock.tick() => self.ping().await?,
            }
            self.say().await?;
        }
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        if self.unanswered == UNANSWERED {
            return Err(LinkError::Silent);
        }
        self.unanswered += 1;
        // A server may live on without the part of it that answers.
        self.question.take_if(|question| question.since.elapsed() > ANSWER);
        self.link.write(b"PING\r\n").await
    }

    /// Says what there is to say: of all rooms in one piece, with one question behind them for all who wait.
    async fn say(&mut self) -> Result<(), LinkError> {
        if self.question.is_some() {
            let unsaid = self.rooms.unsaid();
            return if unsaid.is_empty() { Ok(()) } else { self.link.write(&unsaid).await };
        }
        let (mut unsaid, waiters) = self.rooms.waiting();
        if !waiters.is_empty() {
            self.asked += 1;
            unsaid.extend_from_slice(format!("PUB {} {}{} 0\r\n\r\n", stream::INFO, self.inbox, self.asked).as_bytes());
            self.question = Some(Question { since: Instant::now(), waiters });
        }
        if unsaid.is_empty() { Ok(()) } else { self.link.write(&unsaid).await }
    }

    /// Takes what was read. True where the server wants to know whether we are here.
    fn take(&mut self) -> Result<bool, LinkError> {
        let now = Instant::now();
        let (mut pinged, mut events) = (false, Vec::new());
        while let Some(op) = self.link.next()? {
            match op {
                Op::Message(message) if message.sid == INBOX => {
                    let number = message.subject.strip_prefix(&self.inbox).and_then(|number| number.parse().ok());
                    if number == Some(self.asked) {
                        answer(self.question.take(), message.body, &self.known, &self.flow);
                    }
                }
                Op::Message(message) => {
                    let sid = message.sid;
                    events.extend(arrival(&message).filter(|event| self.rooms.has(&event.room, sid)));
                }
                Op::Dropped => metrics::counter!(names::DROPPED, "reason" => "too_large").increment(1),
                Op::Ping => pinged = true,
                Op::Pong => {
                    self.unanswered = 0;
                    self.flow.answered(now);
                }
                Op::Error(error) => tracing::warn!(error = %String::from_utf8_lossy(error), "NATS"),
                Op::Info(_) | Op::Ok => {}
            }
        }
        self.flow.push(now, events);
        Ok(pinged)
    }
}

/// Tells all who asked; who has given up meanwhile needs no answer. A stream that is gone, or is another one, breaks the
/// flow: filling it sets that right.
fn answer(question: Option<Question>, body: &[u8], known: &Known, flow: &LiveBuffer) {
    let Some(Question { waiters, since }) = question else { return };
    let state = stream::read(body);
    let sound = match &state {
        Ok(state) => known.learn(state, since),
        Err(LookError::Missing) => false,
        Err(LookError::Away(_)) => true,
    };
    if sound {
        flow.wake()
    } else {
        flow.break_off()
    }
    for waiter in waiters {
        let _ = waiter.send(state.clone());
    }
}

/// An event, or a count where it is none. The stream's headers come after those of the publisher, so a forged one does
/// not count.
fn arrival(message: &Message<'_>) -> Option<Incoming> {
    let head = String::from_utf8_lossy(message.head);
    let (mut origin, mut sequence, mut stored) = (None, None, None);
    for (name, value) in wire::headers(&head) {
        match name {
            "Nats-Stream" => origin = Some(value),
            "Nats-Sequence" => sequence = Some(value),
            "Nats-Time-Stamp" => stored = Some(value),
            _ => {}
        }
    }
    let sequence = sequence.and_then(|sequence| sequence.parse().ok()).filter(|sequence: &u64| *sequence > 0);
    let Some(sequence) = sequence.filter(|_| origin == Some(stream::NAME)) else {
        metrics::counter!(names::DROPPED, "reason" => "header").increment(1);
        return None;
    };
    // Servers before 2.10 do not say when it was stored. Clocks differ: a negative age is none, and so is one that an
    // event of the stream cannot have.
    let stored = stored.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let age = stored.and_then(|at| (OffsetDateTime::now_utc() - at).try_into().ok());
    let age = age.filter(|age: &Duration| *age <= stream::MAX_AGE);
    let subject = message.subject.strip_prefix(LIVE_PREFIX)?;
    // Copied: a part of the buffer would keep all of it.
    let body = Bytes::copy_from_slice(message.body);
    headers::incoming(subject, wire::headers(&head), Offset(sequence), age, body)
}
