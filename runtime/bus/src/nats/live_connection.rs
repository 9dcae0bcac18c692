//! The live connection: it subscribes to the rooms, passes on their events, and makes the round trips that prove
//! subscriptions and ask for the stream's end ([`super::questions`]).
//!
//! The republished copy of an event may come before or after the answer that counts it:
//! [`super::sequence_tracker::SequenceTracker`] knows whether the event was delivered.
//!
//! Invariant: events and answers are passed on in the order in which a connection brings them. When it breaks, the
//! buffer is marked as broken before any event of the next connection passes.
use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use rollcall_schema::{Offset, subject::LIVE_PREFIX};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{
    connection::{ConnectionError, Info, NatsConnection},
    live_buffer::LiveBuffer,
    questions::{Again, Answer, Heard, Questions},
    servers::{PING_INTERVAL, Servers},
    stream::INFO,
    stream_end::StreamEnd,
    subscriptions::Subscriptions,
    wire::{self, Message, Op},
};
use crate::{Incoming, headers};
use rollcall_base::names;

/// A server that leaves this many pings unanswered is given up.
const MAX_UNANSWERED: u32 = 2;
/// An event that seems to be older than this is not, because the clocks differ.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// The number of the subscription for answers. Rooms have higher numbers.
const INBOX: u64 = 0;

/// The task of the live connection.
pub(super) struct LiveConnection {
    connection: NatsConnection,
    servers: Servers,
    rooms: Arc<Subscriptions>,
    buffer: Arc<LiveBuffer>,
    stream_end: Arc<StreamEnd>,
    questions: Questions,
    unanswered: u32,
}

impl LiveConnection {
    pub(super) fn new(
        connection: NatsConnection,
        servers: Servers,
        rooms: Arc<Subscriptions>,
        buffer: Arc<LiveBuffer>,
        stream_end: Arc<StreamEnd>,
    ) -> Self {
        // The state is set before the task runs, so that a round trip that starts now waits for the connection.
        rooms.connected();
        let questions = questions(&connection, &servers);
        Self { connection, servers, rooms, buffer, stream_end, questions, unanswered: 0 }
    }

    /// Runs until this future is dropped, on one connection after another.
    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.serve().await;
            tracing::warn!(%error, "the live connection to NATS broke");
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "live").increment(1);
            self.stream_end.trust_delivered();
            self.buffer.mark_broken();
            self.rooms.disconnected();
            if let ConnectionError::Silent = error {
                self.servers.note_failure(&self.connection.endpoint);
            }
            self.connection = self.servers.reopen_live().await;
            self.questions = questions(&self.connection, &self.servers);
            self.rooms.connected();
        }
    }

    async fn serve(&mut self) -> Result<Infallible, ConnectionError> {
        let mut clock = interval(PING_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.unanswered = 0;
        self.connection.write(format!("SUB {} {INBOX}\r\n", self.questions.answers()).as_bytes()).await?;
        loop {
            let next = || self.rooms.is_awaited().then(|| self.questions.next_at());
            let due = self.questions.due().or_else(next);
            let mut out = Vec::new();
            tokio::select! {
                read = self.connection.read() => {
                    read?;
                    out = self.process_input()?;
                }
                () = self.rooms.changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => out = self.ask_again(),
                _ = clock.tick() => {
                    if self.unanswered == MAX_UNANSWERED {
                        return Err(ConnectionError::Silent);
                    }
                    self.unanswered += 1;
                    out.extend_from_slice(b"PING\r\n");
                }
            }
            self.add_lines(&mut out);
            if !out.is_empty() {
                self.connection.write(&out).await?;
            }
        }
    }

    fn ask_again(&mut self) -> Vec<u8> {
        if !self.questions.is_waiting() {
            return Vec::new();
        }
        match self.questions.again() {
            Again::Next(message) => message,
            Again::GivenUp { in_cluster } => {
                // A server may live while JetStream in it does not answer. In a cluster another server takes over, and
                // the one that led the stream may have stored events that no server has republished.
                if in_cluster {
                    self.buffer.mark_broken();
                }
                Vec::new()
            }
        }
    }

    /// Adds the SUB and UNSUB lines of all rooms, and after them one question for all waiting callers.
    fn add_lines(&mut self, out: &mut Vec<u8>) {
        if !self.questions.may_begin() {
            return out.extend(self.rooms.take_outgoing());
        }
        let (lines, waiters) = self.rooms.take_round_trip();
        out.extend(lines);
        if !waiters.is_empty() {
            out.extend(self.questions.ask(waiters));
        }
    }

    /// Handles the bytes that were read, and returns the bytes to write.
    fn process_input(&mut self) -> Result<Vec<u8>, ConnectionError> {
        let now = Instant::now();
        let (mut out, mut events, mut news) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(op) = self.connection.next()? {
            match op {
                Op::Message(message) if message.sid == INBOX => {
                    match self.questions.hear(message.subject, message.head, message.body, now) {
                        Heard::Nothing => {}
                        Heard::Next(next) => out.extend(next),
                        Heard::Answer(answer) => {
                            // The answer may say that the stream is another one, so the events of the stream before
                            // must be in the buffer first.
                            self.buffer.push(now, std::mem::take(&mut events));
                            resolve_question(answer, &self.stream_end, &self.buffer);
                        }
                    }
                }
                Op::Message(message) => {
                    let (sid, stream) = (message.sid, &self.servers.options().stream.name);
                    events.extend(parse_event(&message, stream).filter(|event| self.rooms.has(&event.room, sid)));
                }
                Op::Dropped(_) => metrics::counter!(names::DROPPED, "reason" => "too_large").increment(1),
                Op::Ping => out.extend_from_slice(b"PONG\r\n"),
                Op::Pong => self.unanswered = 0,
                Op::Error(error) => tracing::warn!(error = %String::from_utf8_lossy(error), "NATS"),
                Op::Info(info) => news.extend(serde_json::from_slice(info).ok()),
                Op::Ok => {}
            }
        }
        self.buffer.push(now, events);
        news.into_iter().for_each(|info| self.learn(info));
        Ok(out)
    }

    /// Handles a new INFO of the server. If other members of the cluster can be reached now, one of them may have been
    /// restarted or cut off between two questions, and the events that it republished just before are lost.
    fn learn(&mut self, info: Info) {
        if info.members() != self.connection.info.members() {
            self.buffer.mark_broken();
        }
        self.connection.info = info;
        self.servers.learn(&self.connection);
    }
}

fn questions(connection: &NatsConnection, servers: &Servers) -> Questions {
    Questions::new(connection.info.server_name.clone(), servers.options().api(INFO))
}

/// Answers all callers. Marks the buffer as broken if the stream did not tell its end, is another stream, has another
/// leader, had no leader for a moment, or has settings that may keep it from republishing. Then the backfill reads what
/// was not republished, or resets the feed.
fn resolve_question(answer: Answer, stream_end: &StreamEnd, buffer: &LiveBuffer) {
    let Answer { state, asked, arrived, interrupted, waiters } = answer;
    let broken = state.as_ref().map_or(&[][..], |state| &state.broken);
    let reread = state.is_ok() && stream_end.note_settings(broken);
    let is_whole = state.as_ref().is_ok_and(|state| stream_end.confirm(state, asked)) && !interrupted;
    if is_whole && !reread {
        if broken.is_empty() {
            buffer.answered(arrived);
        }
        buffer.wake();
    } else {
        buffer.mark_broken();
    }
    for waiter in waiters {
        let _ = waiter.send(state.clone());
    }
}

/// Reads an event. A message that is not an event is counted. The stream's headers come after the publisher's, so they
/// overwrite forged ones.
fn parse_event(message: &Message<'_>, stream: &str) -> Option<Incoming> {
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
    let Some(sequence) = sequence.filter(|_| origin == Some(stream)) else {
        metrics::counter!(names::DROPPED, "reason" => "header").increment(1);
        return None;
    };
    // Servers before 2.10 do not tell when an event was stored. The clocks may differ, so a negative age is ignored.
    let stored = stored.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let age = stored.and_then(|at| (OffsetDateTime::now_utc() - at).try_into().ok());
    let age = age.filter(|age: &Duration| *age <= MAX_AGE);
    let subject = message.subject.strip_prefix(LIVE_PREFIX)?;
    // The body is copied, because a slice would keep the whole buffer in memory.
    let body = Bytes::copy_from_slice(message.body);
    headers::incoming(subject, wire::headers(&head), Offset(sequence), age, body)
}

#[cfg(test)]
mod tests;
