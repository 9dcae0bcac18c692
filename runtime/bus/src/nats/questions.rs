//! Round trips to the stream on the live connection. They prove subscriptions, and return the stream's end.
//!
//! A message that the stream must refuse proves a subscription. The room's SUB is written before it on the same
//! connection. In a cluster the message takes the same route as the SUB to the server that leads the stream, and its
//! answer the same route as the events. So events that are stored after the answer reach the subscription. From version
//! 2.10 on, questions take another route between servers. So if another server leads the stream, the message is sent
//! first, and the question after its answer.
//!
//! A question loads JetStream's API, so there are at most 200 in a second, however many rooms are added: rooms that are
//! added at the same time share one. Each new room needs an answer: if it began at an earlier end of the stream, a
//! backfill could bring an agent's entered after the left that came live.
//!
//! Invariant: there is one round trip at a time. A message without an answer is sent again, and is given up when no
//! caller waits for it any more. Only answers of the server that leads the stream now count.
use std::time::Duration;

use rollcall_schema::Sid;
use tokio::time::Instant;

use super::{
    CALL_TIMEOUT,
    probe::{NO_STREAM, SUBJECTS},
    stream::{self, State, StateError},
    subscriptions::Waiter,
};

/// The time after which a question without an answer is asked again, because the server that should answer may be gone.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The shortest time between two round trips.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503";

/// The questions of one connection.
pub(super) struct Questions {
    /// The subject of answers without its last token, which is the message's number.
    inbox: String,
    number: u64,
    /// The subject of the question about the stream.
    subject: String,
    /// The name of this connection's server.
    server: String,
    /// The name of the server that led the stream at the last answer.
    leader: Option<String>,
    current: Option<Question>,
    /// When the next round trip may begin.
    next_at: Instant,
}

/// A round trip that waits for its answer.
struct Question {
    waiters: Vec<Waiter>,
    began: Instant,
    /// The future value of [`Answer::interrupted`].
    interrupted: bool,
    /// Whether the message that the stream refuses comes next, or has no answer yet.
    proving: bool,
    /// When the stream refused that message.
    proved: Option<Instant>,
    /// The messages without an answer: the number of each, and when it was sent.
    sent: Vec<(u64, Instant)>,
}

/// What an answer leads to.
pub(super) enum Heard {
    Nothing,
    /// The bytes to write next.
    Next(Vec<u8>),
    Answer(Answer),
}

/// The answer to a question.
pub(super) struct Answer {
    pub(super) state: Result<State, StateError>,
    /// When the question was asked.
    pub(super) asked: Instant,
    /// Events that were republished before this time have arrived.
    pub(super) arrived: Instant,
    /// Whether the stream had no leader for a moment, or a message to its leader was lost. Then events that were
    /// republished just before may be lost, too.
    pub(super) interrupted: bool,
    pub(super) waiters: Vec<Waiter>,
}

/// What follows if no answer has come in time.
pub(super) enum Again {
    /// The bytes to write next.
    Next(Vec<u8>),
    /// The question is given up. In a cluster the stream may have lost its leader.
    GivenUp { in_cluster: bool },
}

impl Questions {
    /// Creates the questions on a connection to this server. `subject` is the subject of a question.
    pub(super) fn new(server: String, subject: String) -> Self {
        let inbox = format!("_INBOX.{}.", Sid::random());
        Self { inbox, number: 0, subject, server, leader: None, current: None, next_at: Instant::now() }
    }

    /// Returns the subject to which answers come.
    pub(super) fn answers(&self) -> String {
        format!("{}*", self.inbox)
    }

    /// Returns whether a round trip is under way.
    pub(super) fn is_waiting(&self) -> bool {
        self.current.is_some()
    }

    /// Returns whether a round trip may begin now: none is under way, and the last one began long enough ago.
    pub(super) fn may_begin(&self) -> bool {
        !self.is_waiting() && Instant::now() >= self.next_at
    }

    /// Returns when the next round trip may begin, if none is under way.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Begins a round trip for these callers. Returns the bytes to write after the SUB lines of their rooms.
    pub(super) fn ask(&mut self, waiters: Vec<Waiter>) -> Vec<u8> {
        let proving = self.leader.as_ref().is_some_and(|leader| *leader != self.server);
        let (began, sent) = (Instant::now(), Vec::new());
        self.next_at = began + MIN_INTERVAL;
        self.current = Some(Question { waiters, began, interrupted: false, proving, proved: None, sent });
        self.send()
    }

    /// Returns when [`Questions::again`] must be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let question = self.current.as_ref()?;
        Some(question.sent.last().map_or(question.began, |(_, at)| *at) + ASK_AGAIN)
    }

    /// Handles that no answer has come in time.
    pub(super) fn again(&mut self) -> Again {
        if self.current.as_ref().is_some_and(|question| question.began.elapsed() < CALL_TIMEOUT) {
            return Again::Next(self.send());
        }
        self.current = None;
        Again::GivenUp { in_cluster: self.leader.is_some() }
    }

    /// Handles a message to [`Questions::answers`].
    pub(super) fn hear(&mut self, subject: &str, head: &[u8], body: &[u8], now: Instant) -> Heard {
        let number = subject.strip_prefix(&self.inbox).and_then(|number| number.parse::<u64>().ok());
        let Some(question) = &mut self.current else { return Heard::Nothing };
        let Some(place) = question.sent.iter().position(|(sent, _)| Some(*sent) == number) else {
            return Heard::Nothing;
        };
        let (_, asked) = question.sent[place];
        if question.proving {
            return self.hear_refusal(head, place > 0, now);
        }
        let state = stream::parse_state(body);
        if let Ok(State { leader, .. }) = &state {
            let same = *leader == self.leader;
            self.leader.clone_from(leader);
            let elsewhere = leader.as_ref().is_some_and(|leader| *leader != self.server);
            if elsewhere && !(same && question.proved.is_some()) {
                (question.proving, question.proved) = (true, None);
                question.sent.clear();
                return Heard::Next(self.send());
            }
        }
        let Some(Question { waiters, proved, interrupted, .. }) = self.current.take() else { return Heard::Nothing };
        Heard::Answer(Answer { state, asked, arrived: proved.unwrap_or(now), interrupted, waiters })
    }

    /// Handles the answer to the message that the stream refuses. `lost` says that an earlier copy of it has no answer.
    fn hear_refusal(&mut self, head: &[u8], lost: bool, now: Instant) -> Heard {
        let Some(question) = &mut self.current else { return Heard::Nothing };
        question.proving = false;
        question.sent.clear();
        if head.starts_with(NO_RESPONDERS) {
            // The stream has no leader, or does not exist. The next question will show which.
            question.interrupted = true;
            return Heard::Nothing;
        }
        question.interrupted |= lost;
        question.proved = Some(now);
        Heard::Next(self.send())
    }

    /// Sends the message that is due, for the first time or again.
    fn send(&mut self) -> Vec<u8> {
        let Some(question) = &mut self.current else { return Vec::new() };
        self.number += 1;
        question.sent.push((self.number, Instant::now()));
        let (inbox, number) = (&self.inbox, self.number);
        let message = if question.proving {
            let head = format!("NATS/1.0\r\nNats-Expected-Stream: {NO_STREAM}\r\n\r\n");
            let (subject, length) = (SUBJECTS[0], head.len());
            format!("HPUB {subject} {inbox}{number} {length} {length}\r\n{head}\r\n")
        } else {
            format!("PUB {} {inbox}{number} 0\r\n\r\n", self.subject)
        };
        message.into_bytes()
    }
}

#[cfg(test)]
mod tests;
