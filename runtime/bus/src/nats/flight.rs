//! What is on the way on the publishing connection, and what waits for its turn.
//!
//! Bytes that have left this machine cannot be called back: a path or a server that stands still may deliver them minutes
//! later, when the stream has forgotten the message id and another node has published the same event. So an event of
//! presence carries the sequence of the last event of its subject (`Nats-Expected-Last-Subject-Sequence`), and the server
//! refuses it once the subject has moved on.
//!
//! So events of one subject go one by one, those of different subjects side by side. To guess the sequence that the one
//! before will have would be faster for one large room, and would let one pass whose guess happens to fit later.
//!
//! Invariant: the events of a subject are stored in the order in which they were handed in; nothing is sent later than
//! [`SEND`] after that.
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use rollcall_schema::Offset;
use tokio::{sync::oneshot, time::Instant};

use super::{
    ANSWER,
    message::{self, Failed, away},
};
use crate::{Publication, PublishError};

/// Messages on the way without an answer.
const WINDOW: usize = 256;
/// Requests under way at once; others wait in the channel.
const ACTIVE: usize = 256;
/// How long after a request was made its messages may be sent, by the monotonic clock and by the wall clock: the first
/// stands still with a virtual machine that is paused. The rest of [`ANSWER`] is for the answers.
const SEND: Duration = Duration::from_millis(700);
/// Subjects whose last sequence is known. Beyond that all are forgotten; each then costs one refused message.
const KNOWN: usize = 100_000;

pub(super) type Outcome = Result<Offset, PublishError>;

/// A batch, and who waits for its results.
pub(super) struct Request {
    pub(super) batch: Vec<Publication>,
    pub(super) since: Instant,
    pub(super) wall: SystemTime,
    pub(super) answer: oneshot::Sender<Vec<Outcome>>,
}

impl Request {
    fn is_fresh(since: Instant, wall: SystemTime) -> bool {
        // A wall clock that was set back says nothing.
        since.elapsed() < SEND && wall.elapsed().is_ok_and(|elapsed| elapsed < SEND)
    }
}

/// A request under way.
struct Active {
    since: Instant,
    wall: SystemTime,
    results: Vec<Option<Outcome>>,
    open: usize,
    answer: oneshot::Sender<Vec<Outcome>>,
}

/// One message of a request.
struct Pending {
    request: u64,
    place: usize,
    publication: Publication,
}

/// A message on the way.
struct Flying {
    pending: Pending,
    sent: Instant,
}

/// See the module.
pub(super) struct Flight {
    active: HashMap<u64, Active>,
    asked: u64,
    /// By the last token of the subject that the answer comes to.
    flying: HashMap<u64, Flying>,
    sent: u64,
    /// Without a fence.
    free: VecDeque<Pending>,
    /// The fenced messages of each subject that wait. A subject is here while it has any, or one on the way.
    lanes: HashMap<String, VecDeque<Pending>>,
    /// Subjects of `lanes` that have none on the way.
    ready: VecDeque<String>,
    /// The last sequence of each subject, as far as known.
    ends: HashMap<String, u64>,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self {
            active: HashMap::new(),
            asked: 0,
            flying: HashMap::new(),
            sent: 0,
            free: VecDeque::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            ends: HashMap::new(),
        }
    }

    /// Whether another request may begin.
    pub(super) fn has_room(&self) -> bool {
        self.active.len() < ACTIVE
    }

    /// Until when the oldest message on the way must be answered.
    pub(super) fn due(&self) -> Option<Instant> {
        self.flying.values().map(|flying| flying.sent + ANSWER).min()
    }

    /// What was under way has an unknown outcome.
    pub(super) fn forget(&mut self, why: &str) {
        (self.flying, self.free, self.lanes) = (HashMap::new(), VecDeque::new(), HashMap::new());
        self.ready.clear();
        for (_, active) in self.active.drain() {
            let result = |result: Option<Outcome>| result.unwrap_or_else(|| Err(away(why)));
            active.answer.send(active.results.into_iter().map(result).collect()).ok();
        }
    }

    pub(super) fn begin(&mut self, request: Request, limit: usize) {
        let Request { batch, since, wall, answer } = request;
        self.asked += 1;
        let (number, open) = (self.asked, batch.len());
        let active = Active { since, wall, results: vec![None; open], open, answer };
        self.active.insert(number, active);
        for (place, publication) in batch.into_iter().enumerate() {
            if let Some(why) = message::unfit(&publication, limit) {
                self.settle(number, place, Err(PublishError::Refused(why)));
                continue;
            }
            let pending = Pending { request: number, place, publication };
            if pending.publication.fenced {
                let subject = pending.publication.subject.to_string();
                let lane = self.lanes.entry(subject.clone()).or_insert_with(|| {
                    self.ready.push_back(subject);
                    VecDeque::new()
                });
                lane.push_back(pending);
            } else {
                self.free.push_back(pending);
            }
        }
        if open == 0 {
            self.settle_empty(number);
        }
    }

    /// What may be sent now, encoded.
    pub(super) fn outgoing(&mut self, inbox: &str) -> Vec<u8> {
        let mut out = Vec::new();
        while self.flying.len() < WINDOW {
            let Some(pending) = self.free.pop_front() else { break };
            if self.is_fresh(&pending) {
                self.send(&mut out, inbox, pending, None);
            }
        }
        while self.flying.len() < WINDOW {
            let Some(subject) = self.ready.pop_front() else { break };
            self.release(&mut out, inbox, &subject);
        }
        out
    }

    /// Sends the next of a subject, none of which is on the way.
    fn release(&mut self, out: &mut Vec<u8>, inbox: &str, subject: &str) {
        while let Some(pending) = self.lanes.get_mut(subject).and_then(VecDeque::pop_front) {
            if self.is_fresh(&pending) {
                let expected = self.ends.get(subject).copied().unwrap_or(0);
                return self.send(out, inbox, pending, Some(expected));
            }
        }
        self.lanes.remove(subject);
    }

    /// Too late a message is answered for, and not sent: its row may be another node's by now.
    fn is_fresh(&mut self, pending: &Pending) -> bool {
        let Some(active) = self.active.get(&pending.request) else { return false };
        if Request::is_fresh(active.since, active.wall) && !active.answer.is_closed() {
            return true;
        }
        self.settle(pending.request, pending.place, Err(PublishError::Behind));
        false
    }

    fn send(&mut self, out: &mut Vec<u8>, inbox: &str, pending: Pending, expected: Option<u64>) {
        self.sent += 1;
        message::encode(out, &pending.publication, expected, &format!("{inbox}{}", self.sent));
        self.flying.insert(self.sent, Flying { pending, sent: Instant::now() });
    }

    /// The answer with this number has come.
    pub(super) fn take(&mut self, number: u64, head: &[u8], body: &[u8]) {
        if let Some(flying) = self.flying.remove(&number) {
            self.answered(flying, message::read(head, body));
        }
    }

    /// No answer comes for what the user has no right to publish. The server names the subject.
    pub(super) fn forbidden(&mut self, error: &str) {
        let Some((_, subject)) = error.split_once("Publish to \"") else { return };
        let subject = subject.trim_end_matches(['\'', '"']);
        let is_it = |flying: &Flying| flying.pending.publication.subject.to_string() == subject;
        let numbers: Vec<u64> =
            self.flying.iter().filter(|(_, flying)| is_it(flying)).map(|(number, _)| *number).collect();
        for flying in numbers.into_iter().filter_map(|number| self.flying.remove(&number)).collect::<Vec<_>>() {
            self.answered(flying, Err(Failed::Away(format!("no right to publish to {subject}"))));
        }
    }

    fn answered(&mut self, flying: Flying, outcome: Result<u64, Failed>) {
        let Pending { request, place, publication } = flying.pending;
        if !publication.fenced {
            return self.settle(request, place, outcome.map(Offset).map_err(Failed::into_error));
        }
        let subject = publication.subject.to_string();
        if self.ends.len() >= KNOWN {
            self.ends.clear();
        }
        match outcome {
            Ok(sequence) => {
                self.ends.insert(subject.clone(), sequence);
                self.settle(request, place, Ok(Offset(sequence)));
                self.ready.push_back(subject);
            }
            Err(failed) => {
                if let Failed::Sequence(Some(sequence)) = failed {
                    self.ends.insert(subject.clone(), sequence);
                }
                self.settle(request, place, Err(failed.into_error()));
                // What follows must not overtake it.
                for Pending { request, place, .. } in self.lanes.remove(&subject).into_iter().flatten() {
                    self.settle(request, place, Err(PublishError::Behind));
                }
            }
        }
    }

    fn settle(&mut self, request: u64, place: usize, outcome: Outcome) {
        let Some(active) = self.active.get_mut(&request) else { return };
        if active.results[place].replace(outcome).is_none() {
            active.open -= 1;
        }
        self.settle_empty(request);
    }

    /// Answers a request of which nothing is open.
    fn settle_empty(&mut self, request: u64) {
        if self.active.get(&request).is_some_and(|active| active.open == 0)
            && let Some(active) = self.active.remove(&request)
        {
            active.answer.send(active.results.into_iter().flatten().collect()).ok();
        }
    }
}
