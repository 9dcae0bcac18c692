//! The events of one subject that have no answer yet. The queue decides how many of them may be sent before the first
//! has its answer.
//!
//! Each event names the sequence of the subject's last event. For the first event that is sent, this sequence is known.
//! For the events behind it, it is guessed: a message gets the sequence after that of the message sent before it,
//! unless another client's message is stored in between. Then the server refuses the event, and it is sent again.
//!
//! The server accepts a copy that is delivered minutes late if the subject ends exactly at the guess. Then the subject
//! must not have a later event of the same agent. So only an event that no node has sent before is sent on a guess: a
//! node that publishes it and its successors meanwhile also publishes the events ahead of it, and each of them takes
//! one sequence.
//!
//! Invariant: events of one agent are sent one by one, in the order in which they were handed in.
use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The number of events of a subject that may be sent at first. It never becomes smaller.
const SMALLEST_WINDOW: usize = 2;
const LARGEST_WINDOW: usize = 64;
/// How long nothing is guessed after a break. It is longer than [`YOUNG`](crate::YOUNG).
const AFTER_BREAK: Duration = Duration::from_secs(2);

/// An event that waits.
pub(super) struct Waiting<T> {
    /// The event's place in the order in which all events were handed in.
    pub(super) order: u64,
    /// A number that is equal for events of one agent.
    pub(super) agent: u64,
    /// Whether the event may be sent on a guess.
    pub(super) first_try: bool,
    pub(super) event: T,
}

/// An event that was sent and has no answer.
struct Sent {
    number: u64,
    agent: u64,
    /// The sequence that the event gets if no other message is stored in between.
    guess: Option<u64>,
}

#[derive(PartialEq)]
enum State {
    Sending,
    /// A guess was wrong. Most events that were sent behind it are refused, too, so all answers are awaited.
    AwaitingAnswers,
    /// An event failed, so those behind it are not stored either.
    Failed,
}

/// The sequence that the next event of a subject must name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    /// The last known sequence of the subject.
    Known,
    Guessed(u64),
}

/// The queue of one subject.
pub(super) struct SubjectQueue<T> {
    waiting: VecDeque<Waiting<T>>,
    sent: VecDeque<Sent>,
    state: State,
}

impl<T> SubjectQueue<T> {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), sent: VecDeque::new(), state: State::Sending }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    pub(super) fn push(&mut self, waiting: Waiting<T>) {
        self.waiting.push_back(waiting);
    }

    /// Returns the next event that may be sent now, if there is one.
    pub(super) fn next(&mut self, window: usize) -> Option<(Waiting<T>, Expected)> {
        if self.sent.is_empty() {
            self.state = State::Sending;
        }
        if self.state != State::Sending || self.sent.len() >= window {
            return None;
        }
        let expected = match self.sent.back() {
            None => Expected::Known,
            Some(before) => Expected::Guessed(before.guess?),
        };
        let next = self.waiting.front()?;
        let waits = expected != Expected::Known && !next.first_try;
        if waits || self.sent.iter().any(|sent| sent.agent == next.agent) {
            return None;
        }
        Some((self.waiting.pop_front()?, expected))
    }

    pub(super) fn sent(&mut self, number: u64, agent: u64, guess: Option<u64>) {
        self.sent.push_back(Sent { number, agent, guess });
    }

    pub(super) fn answered(&mut self, number: u64) {
        self.sent.retain(|sent| sent.number != number);
    }

    /// Takes back an event that was refused because of its guess. Returns true if it is the first refused one of those
    /// that were sent together.
    pub(super) fn take_back(&mut self, waiting: Waiting<T>) -> bool {
        let at = self.waiting.partition_point(|other| other.order < waiting.order);
        self.waiting.insert(at, waiting);
        std::mem::replace(&mut self.state, State::AwaitingAnswers) == State::Sending
    }

    /// Records that an event failed. Returns the events that waited behind it.
    pub(super) fn fail(&mut self) -> VecDeque<Waiting<T>> {
        self.state = State::Failed;
        std::mem::take(&mut self.waiting)
    }
}

/// The sequence that the next message will get, and how many guesses are trusted.
pub(super) struct Guess {
    next: Option<u64>,
    window: usize,
    /// Nothing is guessed before this moment.
    from: Instant,
}

impl Guess {
    pub(super) fn new() -> Self {
        Self { next: None, window: SMALLEST_WINDOW, from: Instant::now() }
    }

    /// Returns the guesses on a new connection. Nothing is guessed until the messages that the broken connection had
    /// sent have been sent again and are no longer [`YOUNG`](crate::YOUNG).
    pub(super) fn after_break() -> Self {
        Self { from: Instant::now() + AFTER_BREAK, ..Self::new() }
    }

    /// Returns how many events of one subject may be without an answer.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Returns the guess for a message that is sent now.
    pub(super) fn take(&mut self) -> Option<u64> {
        let guess = self.next.filter(|_| self.from <= Instant::now())?;
        self.next = Some(guess + 1);
        Some(guess)
    }

    /// Records that a message was stored, while this many that were sent after it have no answer yet.
    pub(super) fn stored(&mut self, sequence: u64, unanswered: usize) {
        self.next = Some(sequence + unanswered as u64 + 1);
    }

    /// Records that a message took no sequence.
    pub(super) fn not_stored(&mut self) {
        self.next = self.next.map(|next| next.saturating_sub(1));
    }

    pub(super) fn was_right(&mut self) {
        self.window = (self.window + 1).min(LARGEST_WINDOW);
    }

    pub(super) fn was_wrong(&mut self) {
        self.window = (self.window / 2).max(SMALLEST_WINDOW);
    }
}
