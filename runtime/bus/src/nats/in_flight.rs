//! Messages that were sent and have no answer yet, and messages that wait to be sent.
//!
//! Sent bytes cannot be taken back: a network or a server that was stopped may deliver them minutes later, when the
//! stream has forgotten the message id and another node has published the same event. So an event of presence carries
//! the sequence of its subject's last event (`Nats-Expected-Last-Subject-Sequence`), and the server refuses it once the
//! subject has a later event.
//!
//! Events of different subjects are sent concurrently, and those of one subject as [`SubjectQueue`] allows.
//!
//! Invariant: the events of an agent in a subject are stored in the order in which they were handed in, and no event is
//! sent later than [`SEND_TIMEOUT`] after that.
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use rollcall_base::since::Since;
use rollcall_schema::{Offset, header};
use tokio::{sync::oneshot, time::Instant};

use super::{
    CALL_TIMEOUT,
    message::{self, PublishFailure, Stored, away},
    subject_queue::{Expected, Guess, SubjectQueue, Waiting},
};
use crate::{Fence, Publication, PublishError};

/// The maximum number of messages without an answer.
const MAX_UNANSWERED: usize = 256;
/// How many requests are handled at once. Further requests wait in the channel.
const MAX_REQUESTS: usize = 256;
/// How long after its request a message may be sent. The rest of [`CALL_TIMEOUT`] is for the answer.
const SEND_TIMEOUT: Duration = Duration::from_millis(700);
/// The maximum number of subjects whose last sequence is remembered. If there are more, all are forgotten, which costs
/// one refused message for each subject.
const MAX_SUBJECTS: usize = 100_000;

pub(super) type Outcome = Result<Offset, PublishError>;

/// A batch, and the sender for its results.
pub(super) struct Request {
    pub(super) batch: Vec<Publication>,
    pub(super) since: Since,
    pub(super) answer: oneshot::Sender<Vec<Outcome>>,
}

/// A request whose results are not complete.
struct Active {
    since: Since,
    results: Vec<Option<Outcome>>,
    unresolved: usize,
    answer: oneshot::Sender<Vec<Outcome>>,
}

/// One message of a request.
struct Pending {
    request: u64,
    index: usize,
    publication: Publication,
}

/// A message that was sent and has no answer.
struct SentMessage {
    pending: Pending,
    sent: Instant,
    fence: Option<FencedMessage>,
}

/// A fenced message, as its subject's queue knows it.
struct FencedMessage {
    order: u64,
    agent: u64,
    expected: Expected,
}

/// All messages of one connection.
pub(super) struct InFlight {
    active: HashMap<u64, Active>,
    last_request: u64,
    /// Sent messages by the number at the end of the subject for their answer.
    sent_messages: HashMap<u64, SentMessage>,
    sent: u64,
    /// Waiting messages without a fence.
    unfenced: VecDeque<Pending>,
    /// The fenced messages of each subject that has some.
    queues: HashMap<String, SubjectQueue<Pending>>,
    /// Subjects in `queues` that may have a message to send.
    ready: VecDeque<String>,
    /// The last sequence of each subject, if it is known.
    last_sequences: HashMap<String, u64>,
    guess: Guess,
    fenced: u64,
    hasher: RandomState,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            active: HashMap::new(),
            last_request: 0,
            sent_messages: HashMap::new(),
            sent: 0,
            unfenced: VecDeque::new(),
            queues: HashMap::new(),
            ready: VecDeque::new(),
            last_sequences: HashMap::new(),
            guess: Guess::new(),
            fenced: 0,
            hasher: RandomState::new(),
        }
    }

    /// Returns whether another request may be added.
    pub(super) fn has_capacity(&self) -> bool {
        self.active.len() < MAX_REQUESTS
    }

    /// Returns the time by which the oldest sent message must be answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent_messages.values().map(|message| message.sent + CALL_TIMEOUT).min()
    }

    /// Gives every sent message an unknown outcome.
    pub(super) fn fail_all(&mut self, why: &str) {
        (self.sent_messages, self.unfenced, self.queues) = (HashMap::new(), VecDeque::new(), HashMap::new());
        self.ready.clear();
        self.guess = Guess::after_break();
        for (_, active) in self.active.drain() {
            let result = |result: Option<Outcome>| result.unwrap_or_else(|| Err(away(why)));
            active.answer.send(active.results.into_iter().map(result).collect()).ok();
        }
    }

    pub(super) fn add(&mut self, request: Request, limit: usize) {
        let Request { batch, since, answer } = request;
        self.last_request += 1;
        let (number, unresolved) = (self.last_request, batch.len());
        let active = Active { since, results: vec![None; unresolved], unresolved, answer };
        self.active.insert(number, active);
        for (index, publication) in batch.into_iter().enumerate() {
            if let Some(why) = message::why_unsendable(&publication, limit) {
                self.resolve(number, index, Err(PublishError::Refused(why)));
                continue;
            }
            let pending = Pending { request: number, index, publication };
            if pending.publication.fence != Fence::None {
                self.add_fenced(pending);
            } else {
                self.unfenced.push_back(pending);
            }
        }
        if unresolved == 0 {
            self.respond_if_complete(number);
        }
    }

    fn add_fenced(&mut self, event: Pending) {
        self.fenced += 1;
        let subject = event.publication.subject.to_string();
        let sender = event.publication.headers.iter().find(|(name, _)| *name == header::SENDER_AGENT_ID);
        let agent = self.hasher.hash_one(sender.map(|(_, agent)| agent));
        let queue = self.queues.entry(subject.clone()).or_insert_with(SubjectQueue::new);
        let first_try = event.publication.fence == Fence::FirstTry;
        queue.push(Waiting { order: self.fenced, agent, first_try, event });
        self.ready.push_back(subject);
    }

    /// Returns the messages that may be sent now, encoded.
    pub(super) fn outgoing(&mut self, inbox: &str) -> Vec<u8> {
        let mut out = Vec::new();
        while self.sent_messages.len() < MAX_UNANSWERED {
            let Some(pending) = self.unfenced.pop_front() else { break };
            if self.is_fresh(&pending) {
                self.send(&mut out, inbox, pending, None);
            }
        }
        while self.sent_messages.len() < MAX_UNANSWERED {
            let Some(subject) = self.ready.pop_front() else { break };
            self.send_events(&mut out, inbox, &subject);
        }
        out
    }

    /// Sends the messages of a subject that its queue allows.
    fn send_events(&mut self, out: &mut Vec<u8>, inbox: &str, subject: &str) {
        while let Some((waiting, expected)) = self.queues.get_mut(subject).and_then(|q| q.next(self.guess.window())) {
            let Waiting { order, agent, event, .. } = waiting;
            if !self.is_fresh(&event) {
                continue;
            }
            let fence = FencedMessage { order, agent, expected };
            let guess = self.send(out, inbox, event, Some((subject, fence)));
            if let Some(queue) = self.queues.get_mut(subject) {
                queue.sent(self.sent, agent, guess);
            }
            if self.sent_messages.len() >= MAX_UNANSWERED {
                return self.ready.push_front(subject.to_owned());
            }
        }
        if self.queues.get(subject).is_some_and(SubjectQueue::is_empty) {
            self.queues.remove(subject);
        }
    }

    /// Returns whether a message may still be sent. One that is too late gets its result without being sent, because
    /// its row may belong to another node by now.
    fn is_fresh(&mut self, pending: &Pending) -> bool {
        let Some(active) = self.active.get(&pending.request) else { return false };
        if active.since.is_within(SEND_TIMEOUT) && !active.answer.is_closed() {
            return true;
        }
        self.resolve(pending.request, pending.index, Err(PublishError::Behind));
        false
    }

    /// Sends a message. Returns the guess at its sequence.
    fn send(
        &mut self,
        out: &mut Vec<u8>,
        inbox: &str,
        pending: Pending,
        fence: Option<(&str, FencedMessage)>,
    ) -> Option<u64> {
        self.sent += 1;
        let expected = fence.as_ref().map(|(subject, fence)| match fence.expected {
            Expected::Known => self.last_sequences.get(*subject).copied().unwrap_or(0),
            Expected::Guessed(sequence) => sequence,
        });
        message::encode(out, &pending.publication, expected, &format!("{inbox}{}", self.sent));
        let fence = fence.map(|(_, fence)| fence);
        self.sent_messages.insert(self.sent, SentMessage { pending, sent: Instant::now(), fence });
        self.guess.take()
    }

    /// Handles the answer to the message with this number.
    pub(super) fn handle_answer(&mut self, number: u64, head: &[u8], body: &[u8]) {
        if let Some(message) = self.sent_messages.remove(&number) {
            self.handle_outcome(number, message, message::parse_answer(head, body));
        }
    }

    /// Handles the error for a message that the user may not publish. Such a message gets no answer, and the server's
    /// error names its subject.
    pub(super) fn forbidden(&mut self, error: &str) {
        let Some((_, subject)) = error.split_once("Publish to \"") else { return };
        let subject = subject.trim_end_matches(['\'', '"']);
        let is_it = |message: &SentMessage| message.pending.publication.subject.to_string() == subject;
        let numbers: Vec<u64> =
            self.sent_messages.iter().filter(|(_, message)| is_it(message)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(message) = self.sent_messages.remove(&number) {
                let failure = PublishFailure::Away(format!("no right to publish to {subject}"));
                self.handle_outcome(number, message, Err(failure));
            }
        }
    }

    fn handle_outcome(&mut self, number: u64, message: SentMessage, outcome: Result<Stored, PublishFailure>) {
        match outcome {
            Ok(Stored { sequence, duplicate: false }) => self.guess.stored(sequence, self.sent_messages.len()),
            _ => self.guess.not_stored(),
        }
        let Pending { request, index, .. } = message.pending;
        let offset = outcome.map(|stored| (Offset(stored.sequence), stored.duplicate));
        let Some(fence) = message.fence else {
            return self.resolve(request, index, offset.map(|(offset, _)| offset).map_err(PublishFailure::into_error));
        };
        let subject = message.pending.publication.subject.to_string();
        if self.last_sequences.len() >= MAX_SUBJECTS {
            self.last_sequences.clear();
        }
        let last = self.last_sequences.entry(subject.clone()).or_default();
        let Some(queue) = self.queues.get_mut(&subject) else { return };
        queue.answered(number);
        let guessed = matches!(fence.expected, Expected::Guessed(_));
        match offset {
            Ok((offset, duplicate)) => {
                // A duplicate may not be the subject's last event.
                *last = if duplicate { offset.0.max(*last) } else { offset.0 };
                if guessed && !duplicate {
                    self.guess.was_right();
                }
                self.resolve(request, index, Ok(offset));
            }
            Err(PublishFailure::Sequence(sequence)) if guessed && !queue.has_failed() => {
                *last = sequence.unwrap_or(*last);
                let FencedMessage { order, agent, .. } = fence;
                if queue.take_back(Waiting { order, agent, first_try: false, event: message.pending }) {
                    self.guess.was_wrong();
                }
            }
            Err(failed) => {
                if let PublishFailure::Sequence(Some(sequence)) = failed {
                    *last = sequence;
                }
                let behind = queue.fail();
                self.resolve(request, index, Err(failed.into_error()));
                for Waiting { event: Pending { request, index, .. }, .. } in behind {
                    self.resolve(request, index, Err(PublishError::Behind));
                }
            }
        }
        self.ready.push_back(subject);
    }

    fn resolve(&mut self, request: u64, index: usize, outcome: Outcome) {
        let Some(active) = self.active.get_mut(&request) else { return };
        if active.results[index].replace(outcome).is_none() {
            active.unresolved -= 1;
        }
        self.respond_if_complete(request);
    }

    /// Answers a request whose results are complete.
    fn respond_if_complete(&mut self, request: u64) {
        if self.active.get(&request).is_some_and(|active| active.unresolved == 0)
            && let Some(active) = self.active.remove(&request)
        {
            active.answer.send(active.results.into_iter().flatten().collect()).ok();
        }
    }
}

#[cfg(test)]
mod tests;
