//! Round trips to the stream on the live connection: they prove subscriptions, and tell where the stream is.
//!
//! A message that the stream must refuse proves a subscription: the room's SUB is written before it, on the same
//! connection, and in a cluster it takes the way of the SUB to the server that leads the stream, and its answer that of the
//! events. What is stored after the answer finds the subscription. From version 2.10 on, questions take another way between
//! servers. So where another server leads the stream, the message goes first, and the question follows its answer: what the
//! stream holds then can be read from it.
//!
//! A question costs JetStream's API something, so there are at most 200 in a second, however many rooms are added: those of a
//! moment share one. Each new room needs the answer: if it began where the stream was known to be earlier, a backfill could
//! bring an agent's entered after the left that came live.
//!
//! Invariant: one round trip at a time. What is not answered is sent again, and is given up when nobody waits for it any
//! more. Only answers of the server that leads the stream now count.
use std::time::Duration;

use rollcall_schema::Sid;
use tokio::time::Instant;

use super::{
    CALL_TIMEOUT,
    probe::{NO_STREAM, SUBJECTS},
    stream::{self, State, StateError},
    subscriptions::Waiter,
};

/// After which time a question without an answer is asked again: the server that was to answer may be gone.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Between two round trips.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503";

/// See the module.
pub(super) struct Questions {
    /// The subject of answers without its last token, which is the message's number.
    inbox: String,
    number: u64,
    /// The subject of the question.
    subject: String,
    /// The server of this connection.
    server: String,
    /// The server that leads the stream, as it was last told.
    leader: Option<String>,
    current: Option<Question>,
    /// When the next round trip may begin.
    next_at: Instant,
}

/// A round trip that waits for its answer.
struct Question {
    waiters: Vec<Waiter>,
    began: Instant,
    /// See [`Answer::interrupted`].
    interrupted: bool,
    /// Whether the message that is to be refused goes next, or has no answer yet.
    proving: bool,
    /// When that was answered.
    proved: Option<Instant>,
    /// What has no answer yet: its number, and when it was sent.
    sent: Vec<(u64, Instant)>,
}

/// What follows from an answer.
pub(super) enum Heard {
    Nothing,
    /// To be written.
    Next(Vec<u8>),
    Answer(Answer),
}

/// The answer to a question.
pub(super) struct Answer {
    pub(super) state: Result<State, StateError>,
    /// When it was asked.
    pub(super) asked: Instant,
    /// Events that were republished before this have arrived.
    pub(super) arrived: Instant,
    /// For a moment nobody led the stream, or what was sent to its leader got lost: so may have what was republished just
    /// before.
    pub(super) interrupted: bool,
    pub(super) waiters: Vec<Waiter>,
}

/// What follows from the time.
pub(super) enum Again {
    /// To be written.
    Next(Vec<u8>),
    /// The question is given up. In a cluster its stream may have lost its leader.
    GivenUp { in_cluster: bool },
}

impl Questions {
    /// The questions on a connection to this server; `subject` is the subject of each.
    pub(super) fn new(server: String, subject: String) -> Self {
        let inbox = format!("_INBOX.{}.", Sid::random());
        Self { inbox, number: 0, subject, server, leader: None, current: None, next_at: Instant::now() }
    }

    /// The subject that answers come to.
    pub(super) fn answers(&self) -> String {
        format!("{}*", self.inbox)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.current.is_some()
    }

    /// When the next round trip may begin, if none is under way.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Asks for these callers. Returns what is to be written after the SUB lines of their rooms.
    pub(super) fn ask(&mut self, waiters: Vec<Waiter>) -> Vec<u8> {
        let proving = self.leader.as_ref().is_some_and(|leader| *leader != self.server);
        let (began, sent) = (Instant::now(), Vec::new());
        self.next_at = began + MIN_INTERVAL;
        self.current = Some(Question { waiters, began, interrupted: false, proving, proved: None, sent });
        self.send()
    }

    /// When [`Questions::again`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let question = self.current.as_ref()?;
        Some(question.sent.last().map_or(question.began, |(_, at)| *at) + ASK_AGAIN)
    }

    /// There is no answer yet.
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

    /// Handles the answer to the message that the stream refuses. `lost`: one that was sent before it has none.
    fn hear_refusal(&mut self, head: &[u8], lost: bool, now: Instant) -> Heard {
        let Some(question) = &mut self.current else { return Heard::Nothing };
        question.proving = false;
        question.sent.clear();
        if head.starts_with(NO_RESPONDERS) {
            // Nobody leads the stream, or there is none. The question tells which, after a while.
            question.interrupted = true;
            return Heard::Nothing;
        }
        question.interrupted |= lost;
        question.proved = Some(now);
        Heard::Next(self.send())
    }

    /// The message that is due, once more if it was sent before.
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
