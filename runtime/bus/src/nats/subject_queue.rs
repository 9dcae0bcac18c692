//! The events of one subject that have no answer yet, and how many of them may be sent before the first has one.
//!
//! Each event names the sequence of the subject's last one. For the first that is sent it is known. For those behind it
//! it is guessed: a message gets the sequence after the one that was sent before it, unless somebody else stores in
//! between. Then the server refuses what was guessed wrongly, and it is sent again.
//!
//! A copy that is delivered minutes late passes if its subject ends exactly where it guessed. Its agent must have no later
//! event there. So only an event that nobody sent before is sent on a guess: whoever publishes it and its successors
//! meanwhile also publishes those ahead of it, and each of them takes one sequence.
//!
//! Invariant: events of one agent are sent one by one, in the order in which they were handed in.
use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How many events of a subject may be sent at first, and at least.
const SMALLEST_WINDOW: usize = 2;
const LARGEST_WINDOW: usize = 64;
/// Longer than [`YOUNG`](crate::YOUNG).
const AFTER_BREAK: Duration = Duration::from_secs(2);

/// An event that waits.
pub(super) struct Waiting<T> {
    /// Its place among all that were handed in.
    pub(super) order: u64,
    /// Equal for events of one agent.
    pub(super) agent: u64,
    /// Whether it may be sent on a guess.
    pub(super) first_try: bool,
    pub(super) event: T,
}

/// An event without an answer.
struct Sent {
    number: u64,
    agent: u64,
    /// The sequence that it gets if nobody else stores in between.
    guess: Option<u64>,
}

#[derive(PartialEq)]
enum State {
    Sending,
    /// A guess was wrong. What was sent behind it is mostly refused too, so all answers are waited for.
    AwaitingAnswers,
    /// An event failed: those behind it are not stored either.
    Failed,
}

/// What the next event of a subject has to name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    /// The last sequence that is known of the subject.
    Known,
    Guessed(u64),
}

/// See the module.
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

    /// The next event that may be sent now.
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

    /// Takes back an event that was refused because of its guess. True if it is the first of those that were sent
    /// together.
    pub(super) fn take_back(&mut self, waiting: Waiting<T>) -> bool {
        let at = self.waiting.partition_point(|other| other.order < waiting.order);
        self.waiting.insert(at, waiting);
        std::mem::replace(&mut self.state, State::AwaitingAnswers) == State::Sending
    }

    /// An event failed: returns those that waited behind it.
    pub(super) fn fail(&mut self) -> VecDeque<Waiting<T>> {
        self.state = State::Failed;
        std::mem::take(&mut self.waiting)
    }
}

/// Which sequence the next message gets, and how far such guesses are trusted.
pub(super) struct Guess {
    next: Option<u64>,
    window: usize,
    /// Before this moment nothing is guessed.
    from: Instant,
}

impl Guess {
    pub(super) fn new() -> Self {
        Self { next: None, window: SMALLEST_WINDOW, from: Instant::now() }
    }

    /// The guesses on a new connection. What the broken one had sent is sent again first, and no longer counts as
    /// young.
    pub(super) fn after_break() -> Self {
        Self { from: Instant::now() + AFTER_BREAK, ..Self::new() }
    }

    /// How many events of one subject may be without an answer.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// The guess for a message that is sent now.
    pub(super) fn take(&mut self) -> Option<u64> {
        let guess = self.next.filter(|_| self.from <= Instant::now())?;
        self.next = Some(guess + 1);
        Some(guess)
    }

    /// A message was stored, and so many that were sent after it have no answer yet.
    pub(super) fn stored(&mut self, sequence: u64, unanswered: usize) {
        self.next = Some(sequence + unanswered as u64 + 1);
    }

    /// A message took no sequence.
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
