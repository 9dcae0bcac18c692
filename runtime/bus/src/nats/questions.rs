//! Round trips to the stream on the live connection: where it is, asked so that the answer proves the subscriptions.
//!
//! Why a round trip proves a subscription: the room's SUB is written before the question, on the same connection. What the
//! stream holds when it answers can be read from it; what is stored later finds the subscription. In a cluster the
//! server passes both on to the one that leads the stream, from version 2.10 on by different connections, so that one
//! may overtake the other. So where another server leads the stream, a message that the stream must refuse goes first:
//! it takes the way of the SUB, and its answer that of the events. The question follows that answer.
//!
//! Invariant: one question at a time. One that is not answered is asked again, and is given up when nobody waits for it
//! any more. Only answers of the server that leads the stream now count.
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
}

/// A round trip that waits for its answer.
struct Question {
    waiters: Vec<Waiter>,
    began: Instant,
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
    /// For a connection to this server; `subject` is that of the question.
    pub(super) fn new(server: String, subject: String) -> Self {
        let inbox = format!("_INBOX.{}.", Sid::random());
        Self { inbox, number: 0, subject, server, leader: None, current: None }
    }

    /// The subject that answers come to.
    pub(super) fn answers(&self) -> String {
        format!("{}*", self.inbox)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.current.is_some()
    }

    /// Asks for these callers. Returns what is to be written after the SUB lines of their rooms.
    pub(super) fn ask(&mut self, waiters: Vec<Waiter>) -> Vec<u8> {
        let proving = self.is_elsewhere(self.leader.as_deref());
        self.current = Some(Question { waiters, began: Instant::now(), proving, proved: None, sent: Vec::new() });
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
        let sent = question.sent.iter().find(|(sent, _)| Some(*sent) == number);
        let Some(asked) = sent.map(|(_, asked)| *asked) else { return Heard::Nothing };
        if question.proving {
            question.proving = false;
            if head.starts_with(NO_RESPONDERS) {
                // Nobody leads the stream, or there is none. The question tells which, after a while.
                return Heard::Nothing;
            }
            question.proved = Some(now);
            question.sent.clear();
            return Heard::Next(self.send());
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
        let Some(Question { waiters, proved, .. }) = self.current.take() else { return Heard::Nothing };
        Heard::Answer(Answer { state, asked, arrived: proved.unwrap_or(now), waiters })
    }

    fn is_elsewhere(&self, leader: Option<&str>) -> bool {
        leader.is_some_and(|leader| leader != self.server)
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
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn asked(questions: &mut Questions) -> (String, oneshot::Receiver<Result<State, StateError>>) {
        let (waiter, answer) = oneshot::channel();
        (String::from_utf8(questions.ask(vec![waiter])).expect("text"), answer)
    }

    /// Answers the last message.
    fn hear(questions: &mut Questions, head: &str, body: &str) -> Heard {
        let subject = format!("{}{}", questions.inbox, questions.number);
        questions.hear(&subject, head.as_bytes(), body.as_bytes(), Instant::now())
    }

    fn state(leader: Option<&str>) -> String {
        let cluster = leader.map(|leader| format!(r#","cluster":{{"leader":"{leader}"}}"#)).unwrap_or_default();
        format!(r#"{{"created":"now","state":{{"first_seq":1,"last_seq":7,"bytes":0}}{cluster}}}"#)
    }

    fn is_refused_message(written: &[u8]) -> bool {
        written.starts_with(b"HPUB classroom.$probe")
    }

    #[tokio::test]
    async fn on_the_server_that_leads_the_stream_one_message_is_enough() {
        for leader in [None, Some("here")] {
            let mut questions = Questions::new("here".to_owned(), "Q".to_owned());
            for _ in 0..2 {
                let (written, _answer) = asked(&mut questions);
                assert!(written.starts_with("PUB Q "), "{written}");
                assert!(matches!(hear(&mut questions, "", &state(leader)), Heard::Answer(Answer { state: Ok(_), .. })));
            }
        }
    }

    #[tokio::test]
    async fn elsewhere_a_refused_message_goes_before_and_again_for_another_leader() {
        let mut questions = Questions::new("here".to_owned(), "Q".to_owned());
        asked(&mut questions);
        for leader in ["a", "b"] {
            let Heard::Next(written) = hear(&mut questions, "", &state(Some(leader))) else { panic!("not proved") };
            assert!(is_refused_message(&written));
            let Heard::Next(written) = hear(&mut questions, "", "{}") else { panic!("not asked") };
            assert!(written.starts_with(b"PUB Q "));
        }
        assert!(matches!(hear(&mut questions, "", &state(Some("b"))), Heard::Answer(_)));
        // Where it is known that another server leads, it goes first.
        assert!(asked(&mut questions).0.starts_with("HPUB"));
        // Nobody takes it: that proves nothing.
        assert!(matches!(hear(&mut questions, "NATS/1.0 503\r\n\r\n", ""), Heard::Nothing));
        assert!(matches!(questions.again(), Again::Next(written) if written.starts_with(b"PUB Q ")));
        assert!(
            matches!(hear(&mut questions, "", &state(Some("b"))), Heard::Next(written) if is_refused_message(&written))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_asked_again_and_then_given_up() {
        let mut questions = Questions::new("here".to_owned(), "Q".to_owned());
        let (_, answer) = asked(&mut questions);
        let first = format!("{}{}", questions.inbox, questions.number);
        tokio::time::advance(ASK_AGAIN).await;
        assert_eq!(questions.due(), Some(Instant::now()));
        assert!(matches!(questions.again(), Again::Next(_)));
        // The first one is answered late.
        assert!(matches!(questions.hear(&first, b"", state(None).as_bytes(), Instant::now()), Heard::Answer(_)));
        drop(answer);
        asked(&mut questions);
        tokio::time::advance(CALL_TIMEOUT).await;
        assert!(matches!(questions.again(), Again::GivenUp { in_cluster: false }) && !questions.is_waiting());
    }
}
