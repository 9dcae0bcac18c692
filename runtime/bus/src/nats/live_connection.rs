//! The live connection: subscribes to the rooms, passes on their events, and carries the round trips that prove
//! subscriptions and tell where the stream is.
//!
//! Why one round trip proves a subscription: the room's SUB is written before the question for the stream's state, on
//! the same connection. What the stream holds when it answers can be read from it; what is stored later finds the
//! subscription. The republished copy of an event may come before or after the answer that counts it:
//! [`super::sequence_tracker::SequenceTracker`] knows whether it was delivered.
//!
//! Invariant: events are passed on in the order of the wire, from one connection until it breaks. The buffer is marked
//! as broken before anything of the next connection passes.
use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use rollcall_schema::{Offset, Sid, subject::LIVE_PREFIX};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    CALL_TIMEOUT,
    connection::{ConnectionError, NatsConnection},
    live_buffer::LiveBuffer,
    servers::{PING_INTERVAL, Servers},
    stream::{self, StateError},
    stream_end::StreamEnd,
    subscriptions::{Subscriptions, Waiter},
    wire::{self, Message, Op},
};
use crate::{Incoming, headers};
use rollcall_base::names;

/// A server that leaves this many pings unanswered is given up.
const MAX_UNANSWERED: u32 = 3;
/// The subscription for answers; rooms have higher numbers.
const INBOX: u64 = 0;

/// See the module.
pub(super) struct LiveConnection {
    connection: NatsConnection,
    servers: Servers,
    rooms: Arc<Subscriptions>,
    buffer: Arc<LiveBuffer>,
    stream_end: Arc<StreamEnd>,
    /// The subject of answers without its last token, which is the question's number.
    inbox: String,
    question_number: u64,
    question: Option<Question>,
    unanswered: u32,
}

/// A round trip that waits for its answer.
struct Question {
    since: Instant,
    waiters: Vec<Waiter>,
}

impl LiveConnection {
    pub(super) fn new(
        connection: NatsConnection,
        servers: Servers,
        rooms: Arc<Subscriptions>,
        buffer: Arc<LiveBuffer>,
        stream_end: Arc<StreamEnd>,
    ) -> Self {
        // Before the task runs: a round trip that starts now waits for it.
        rooms.connected();
        let inbox = format!("_INBOX.{}.", Sid::random());
        Self {
            connection,
            servers,
            rooms,
            buffer,
            stream_end,
            inbox,
            question_number: 0,
            question: None,
            unanswered: 0,
        }
    }

    /// Runs until it is dropped, on one connection after another.
    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.serve().await;
            tracing::warn!(%error, "the live connection to NATS broke");
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "live").increment(1);
            self.stream_end.trust_delivered();
            self.buffer.mark_broken();
            self.rooms.disconnected();
            self.question = None;
            self.connection = self.servers.reopen_live().await;
            self.rooms.connected();
        }
    }

    async fn serve(&mut self) -> Result<Infallible, ConnectionError> {
        let mut clock = interval(PING_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.unanswered = 0;
        self.connection.write(format!("SUB {}* {INBOX}\r\n", self.inbox).as_bytes()).await?;
        loop {
            tokio::select! {
                read = self.connection.read() => {
                    read?;
                    if self.process_input()? {
                        self.connection.write(b"PONG\r\n").await?;
                    }
                }
                () = self.rooms.changed() => {}
                _ = clock.tick() => self.ping().await?,
            }
            self.flush().await?;
        }
    }

    async fn ping(&mut self) -> Result<(), ConnectionError> {
        if self.unanswered == MAX_UNANSWERED {
            return Err(ConnectionError::Silent);
        }
        self.unanswered += 1;
        // A server may live while the part of it that answers does not.
        self.question.take_if(|question| question.since.elapsed() > CALL_TIMEOUT);
        self.connection.write(b"PING\r\n").await
    }

    /// Writes the SUB and UNSUB lines of all rooms in one piece, and after them one question for all waiting callers.
    async fn flush(&mut self) -> Result<(), ConnectionError> {
        if self.question.is_some() {
            let outgoing = self.rooms.take_outgoing();
            return if outgoing.is_empty() { Ok(()) } else { self.connection.write(&outgoing).await };
        }
        let (mut outgoing, waiters) = self.rooms.take_round_trip();
        if !waiters.is_empty() {
            self.question_number += 1;
            outgoing.extend_from_slice(
                format!("PUB {} {}{} 0\r\n\r\n", stream::INFO, self.inbox, self.question_number).as_bytes(),
            );
            self.question = Some(Question { since: Instant::now(), waiters });
        }
        if outgoing.is_empty() { Ok(()) } else { self.connection.write(&outgoing).await }
    }

    /// Handles what was read. True if the server sent a PING.
    fn process_input(&mut self) -> Result<bool, ConnectionError> {
        let now = Instant::now();
        let (mut pinged, mut events) = (false, Vec::new());
        while let Some(op) = self.connection.next()? {
            match op {
                Op::Message(message) if message.sid == INBOX => {
                    let number = message.subject.strip_prefix(&self.inbox).and_then(|number| number.parse().ok());
                    if number == Some(self.question_number) {
                        resolve_question(self.question.take(), message.body, &self.stream_end, &self.buffer);
                    }
                }
                Op::Message(message) => {
                    let sid = message.sid;
                    events.extend(parse_event(&message).filter(|event| self.rooms.has(&event.room, sid)));
                }
                Op::Dropped => metrics::counter!(names::DROPPED, "reason" => "too_large").increment(1),
                Op::Ping => pinged = true,
                Op::Pong => {
                    self.unanswered = 0;
                    self.buffer.ponged(now);
                }
                Op::Error(error) => tracing::warn!(error = %String::from_utf8_lossy(error), "NATS"),
                Op::Info(_) | Op::Ok => {}
            }
        }
        self.buffer.push(now, events);
        Ok(pinged)
    }
}

/// Answers all callers; those that timed out are skipped. If the stream is gone or is another one, the buffer is marked
/// as broken, and the backfill resets the feed.
fn resolve_question(question: Option<Question>, body: &[u8], stream_end: &StreamEnd, buffer: &LiveBuffer) {
    let Some(Question { waiters, since }) = question else { return };
    let state = stream::parse_state(body);
    let is_current = match &state {
        Ok(state) => stream_end.confirm(state, since),
        Err(StateError::Missing) => false,
        Err(StateError::Away(_)) => true,
    };
    if is_current {
        buffer.wake()
    } else {
        buffer.mark_broken()
    }
    for waiter in waiters {
        let _ = waiter.send(state.clone());
    }
}

/// Reads an event; what is none is counted. The stream's headers come after the publisher's, so forged ones are
/// overwritten.
fn parse_event(message: &Message<'_>) -> Option<Incoming> {
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
    // Servers before 2.10 do not tell when it was stored. Clocks differ: a negative age is ignored, and so is one above
    // the stream's maximum.
    let stored = stored.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let age = stored.and_then(|at| (OffsetDateTime::now_utc() - at).try_into().ok());
    let age = age.filter(|age: &Duration| *age <= stream::MAX_AGE);
    let subject = message.subject.strip_prefix(LIVE_PREFIX)?;
    // Copied, because a slice would keep the whole buffer alive.
    let body = Bytes::copy_from_slice(message.body);
    headers::incoming(subject, wire::headers(&head), Offset(sequence), age, body)
}
