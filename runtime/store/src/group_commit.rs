//! Group commit: concurrent calls become batches, because a commit costs the same for one row as for 256.
//!
//! A batch has all requests that wait when the batch before it ends. No request is delayed to fill a batch, unless the
//! group is throttled, or gathers.
//! Invariants:
//! - Equal keys are never in one batch, nor in two batches at the same time: a key has one lane, and a lane has one
//!   batch.
//! - Every call returns within [`Options::limit`]. A request that has not begun within [`Options::queue_timeout`], or
//!   before its caller was gone, never begins. A request that has begun is written, whether or not its caller waits.
//! - A request that the store refuses fails alone: the requests of a refused batch are run again one by one.
use std::{
    collections::{HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::StoreError;
use rollcall_base::tasks::Tasks;

/// How long a throttled group waits before it takes a batch.
const THROTTLE: Duration = Duration::from_millis(50);
/// A database that takes longer than this for a batch is busy.
const BUSY: Duration = Duration::from_millis(25);
/// After a batch of a busy database, a lane that gathers waits for twice the time that the batch took, but no longer
/// than this. Other nodes' batches run meanwhile, and all batches are larger and fewer.
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// A batch with at least this many requests does not wait. A statement costs as much as about this many rows.
const LARGE: usize = 16;

/// How requests are grouped.
#[derive(Clone, Debug)]
pub struct Options {
    /// The maximum number of requests in a batch.
    pub max_batch: usize,
    /// How many batches run at once, one in each lane. A key is always in the same lane.
    pub lanes: usize,
    /// Whether a lane waits before a small batch while the database is busy, so that batches become larger.
    pub gathers: bool,
    /// The maximum number of requests that wait, in all lanes together. More are refused at once.
    pub queue: usize,
    /// How long a request may wait for its batch to begin.
    pub queue_timeout: Duration,
    /// How long a call may take.
    pub limit: Duration,
    /// While this is true, batches begin later, and are larger and fewer, which leaves the CPU to others.
    pub throttle_while: Option<watch::Receiver<bool>>,
}

impl Options {
    /// Returns the options for a database that only this node uses, or that other nodes share. A shared one runs other
    /// nodes' batches beside each batch, so a second lane would only halve the batches.
    pub fn for_database(shared: bool) -> Self {
        if shared { Self { lanes: 1, gathers: true, ..Self::default() } } else { Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_batch: 256,
            lanes: 2,
            gathers: false,
            queue: 32_768,
            queue_timeout: Duration::from_millis(1100),
            // PROTOCOL 2 allows two seconds for a connect, of which this call is a part.
            limit: Duration::from_millis(1900),
            throttle_while: None,
        }
    }
}

/// A request that waits. The lane takes it out to run it, or the caller takes it out to give up.
type Slot<Q> = Arc<Mutex<Option<Q>>>;

struct Waiting<Q, A> {
    slot: Slot<Q>,
    key: u64,
    since: Instant,
    answer: oneshot::Sender<Result<A, StoreError>>,
}

/// A request in a batch whose caller has no answer yet.
struct PendingReply<A> {
    since: Instant,
    answer: oneshot::Sender<Result<A, StoreError>>,
}

/// Takes requests for one kind of write. Clones share the lanes, which end with the last clone.
pub struct GroupCommit<Q, A> {
    lanes: Arc<[mpsc::Sender<Waiting<Q, A>>]>,
    key: fn(&Q) -> u64,
    queue_timeout: Duration,
}

impl<Q, A> Clone for GroupCommit<Q, A> {
    fn clone(&self) -> Self {
        Self { lanes: self.lanes.clone(), key: self.key, queue_timeout: self.queue_timeout }
    }
}

impl<Q, A> GroupCommit<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    /// Starts the lanes. `key` hashes the key of a request; two requests with the same hash are never in one batch.
    /// `run` writes a batch and returns the answers in its order; it is dropped if it would take longer than the limit.
    pub fn spawn<R, F>(tasks: &Tasks, name: &'static str, options: Options, key: fn(&Q) -> u64, run: R) -> Self
    where
        R: Fn(Vec<Q>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<A>, StoreError>> + Send + 'static,
    {
        let lanes = (0..options.lanes.max(1)).map(|_| {
            let (sender, inbox) = mpsc::channel((options.queue / options.lanes.max(1)).max(1));
            let options = options.clone();
            tasks.spawn(
                name,
                Lane { name, options, inbox, deferred: VecDeque::new(), next_at: Instant::now(), run: run.clone() }
                    .work(),
            );
            sender
        });
        Self { lanes: lanes.collect(), key, queue_timeout: options.queue_timeout }
    }

    /// Writes one request, in a batch with others.
    ///
    /// # Errors
    /// Returns the store's error, or [`StoreError::Overloaded`] if the queue is full or the wait was too long.
    pub async fn call(&self, request: Q) -> Result<A, StoreError> {
        self.call_since(Instant::now(), request).await
    }

    /// Writes one request, as [`GroupCommit::call`] does, for a caller whose client has waited since `since`.
    ///
    /// # Errors
    /// Returns the errors of [`GroupCommit::call`].
    pub async fn call_since(&self, since: Instant, request: Q) -> Result<A, StoreError> {
        let key = (self.key)(&request);
        let slot = Arc::new(Mutex::new(Some(request)));
        let (answer, mut answered) = oneshot::channel();
        let waiting = Waiting { slot: slot.clone(), key, since, answer };
        let lane = &self.lanes[usize::try_from(key % self.lanes.len() as u64).unwrap_or(0)];
        lane.try_send(waiting).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Closed(_) => ended(),
        })?;
        if let Ok(answer) = timeout_at(since + self.queue_timeout, &mut answered).await {
            return answer.unwrap_or_else(|_| Err(ended()));
        }
        if slot.lock().take().is_some() {
            return Err(StoreError::Overloaded);
        }
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("the node is shutting down".to_owned())
}

struct Lane<Q, A, R> {
    name: &'static str,
    options: Options,
    inbox: mpsc::Receiver<Waiting<Q, A>>,
    /// Requests whose key was in an earlier batch already, oldest first.
    deferred: VecDeque<Waiting<Q, A>>,
    /// When the next batch may begin if it is not large.
    next_at: Instant,
    run: R,
}

impl<Q, A, R, F> Lane<Q, A, R>
where
    Q: Clone,
    R: Fn(Vec<Q>) -> F,
    F: Future<Output = Result<Vec<A>, StoreError>>,
{
    async fn work(mut self) {
        let mut arrived = Vec::with_capacity(self.options.max_batch);
        loop {
            if self.deferred.is_empty() && self.inbox.recv_many(&mut arrived, self.options.max_batch).await == 0 {
                return;
            }
            if self.options.throttle_while.as_ref().is_some_and(|throttle| *throttle.borrow()) {
                sleep(THROTTLE).await;
            } else if Instant::now() < self.next_at && arrived.len() + self.deferred.len() < LARGE {
                sleep_until(self.next_at).await;
            }
            let (requests, pending) = self.batch(&mut arrived);
            if !requests.is_empty() {
                let began = Instant::now();
                self.write(requests, pending).await;
                let took = began.elapsed();
                if self.options.gathers && took > BUSY {
                    self.next_at = Instant::now() + (2 * took).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Returns the next batch: deferred requests first, then those that arrived, each key once. Requests that were
    /// given up or whose callers are gone are left out.
    fn batch(&mut self, arrived: &mut Vec<Waiting<Q, A>>) -> (Vec<Q>, Vec<PendingReply<A>>) {
        let mut keys = HashSet::new();
        let (mut requests, mut pending) = (Vec::new(), Vec::new());
        let mut candidates: VecDeque<_> = std::mem::take(&mut self.deferred);
        candidates.extend(arrived.drain(..));
        while requests.len() < self.options.max_batch {
            let room = self.deferred.len() < self.options.max_batch;
            let next = candidates.pop_front().or_else(|| if room { self.inbox.try_recv().ok() } else { None });
            let Some(waiting) = next else { break };
            if waiting.answer.is_closed() {
                continue;
            }
            if keys.contains(&waiting.key) {
                self.deferred.push_back(waiting);
            } else if let Some(request) = waiting.slot.lock().take() {
                keys.insert(waiting.key);
                requests.push(request);
                pending.push(PendingReply { since: waiting.since, answer: waiting.answer });
            }
        }
        self.deferred.extend(candidates);
        (requests, pending)
    }

    async fn write(&self, requests: Vec<Q>, pending: Vec<PendingReply<A>>) {
        let spare = (requests.len() > 1).then(|| requests.clone());
        let answers = match (self.run_in_time(requests, &pending).await, spare) {
            (Err(StoreError::Refused(why)), Some(requests)) => {
                tracing::warn!(group = self.name, why, "a batch was refused; its requests go one by one");
                return self.write_singly(requests, pending).await;
            }
            (answers, _) => answers,
        };
        match answers {
            Ok(answers) => pending.into_iter().zip(answers).for_each(|(pending, answer)| pending.respond(Ok(answer))),
            Err(error) => pending.into_iter().for_each(|pending| pending.respond(Err(error.clone()))),
        }
    }

    async fn write_singly(&self, requests: Vec<Q>, pending: Vec<PendingReply<A>>) {
        for (request, pending) in requests.into_iter().zip(pending) {
            if pending.answer.is_closed() {
                continue;
            }
            if Instant::now() >= pending.since + self.options.limit {
                pending.respond(Err(StoreError::Overloaded));
                continue;
            }
            let answer = self.run_in_time(vec![request], std::slice::from_ref(&pending)).await;
            pending.respond(answer.and_then(|answers| answers.into_iter().next().ok_or_else(short)));
        }
    }

    async fn run_in_time(&self, requests: Vec<Q>, pending: &[PendingReply<A>]) -> Result<Vec<A>, StoreError> {
        let oldest = pending.iter().map(|pending| pending.since).min().unwrap_or_else(Instant::now);
        let count = requests.len();
        let run = AssertUnwindSafe((self.run)(requests)).catch_unwind();
        match timeout_at(oldest + self.options.limit, run).await {
            Ok(Ok(Ok(answers))) if answers.len() != count => Err(short()),
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => Err(StoreError::Unavailable("the write panicked".to_owned())),
            Err(_) => Err(StoreError::Unavailable("the database did not answer in time".to_owned())),
        }
    }
}

/// Returns the error if the store answered fewer requests than it got. What it did is unknown.
fn short() -> StoreError {
    StoreError::Unavailable("not every request was answered".to_owned())
}

impl<A> PendingReply<A> {
    fn respond(self, answer: Result<A, StoreError>) {
        // A caller that is gone needs no answer.
        self.answer.send(answer).ok();
    }
}

#[cfg(test)]
mod tests;
