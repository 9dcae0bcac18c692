//! Ends of sessions that the database refuses.
//!
//! Invariant: a refused end does not delay others. It is tried again, after a pause that doubles up to a minute, until
//! it is written or the session no longer belongs to this node. The number of refused ends is bounded. Those beyond are
//! counted, and their rows stay until this node ends, after which another node ends them.
use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{error, info};

use rollcall_base::{log_limit::LogLimit, names, tasks::Tasks};
use rollcall_store::{Close, Lease, Store, StoreError};

/// The maximum number of ends that wait. Each costs some 200 bytes.
const MAX: usize = 10_000;
/// The first pause between two attempts, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// The pause after an attempt succeeded, because the others may succeed, too.
const MENDED: Duration = Duration::from_secs(1);

/// The handle that takes refused ends. It is cheap to clone.
#[derive(Clone)]
pub struct RefusedEnds(mpsc::Sender<Close>);

impl RefusedEnds {
    /// Starts the task that tries them again. The caller must be inside a runtime.
    #[must_use]
    pub fn start(tasks: &Tasks, store: Arc<dyn Store>, lease: watch::Receiver<Lease>) -> Self {
        let (sender, come) = mpsc::channel(MAX);
        let said = LogLimit::new();
        tasks.spawn("refused ends", Retry { store, lease, come, waiting: VecDeque::new(), said }.run());
        Self(sender)
    }

    /// Adds a refused end.
    pub fn add(&self, close: Close) {
        metrics::counter!(names::DROPPED, "reason" => "close_refused").increment(1);
        if self.0.try_send(close).is_err() {
            metrics::counter!(names::DROPPED, "reason" => "refused_ends_full").increment(1);
        }
    }
}

struct Waiting {
    due: Instant,
    pause: Duration,
    close: Close,
}

struct Retry {
    store: Arc<dyn Store>,
    lease: watch::Receiver<Lease>,
    come: mpsc::Receiver<Close>,
    /// The waiting ends, the next one first.
    waiting: VecDeque<Waiting>,
    said: LogLimit,
}

impl Retry {
    async fn run(mut self) {
        loop {
            metrics::gauge!(names::REFUSED_ENDS).set(self.waiting.len() as f64);
            let next = self.waiting.front().map(|waiting| waiting.due);
            tokio::select! {
                came = self.come.recv(), if self.waiting.len() < MAX => match came {
                    Some(close) => self.wait(Waiting { due: Instant::now() + PAUSE.0, pause: PAUSE.0, close }),
                    None => return,
                },
                () = due(next) => if let Some(waiting) = self.waiting.pop_front() {
                    self.retry(waiting).await;
                },
            }
        }
    }

    async fn retry(&mut self, Waiting { pause, close, .. }: Waiting) {
        let lease = *self.lease.borrow();
        let now = Instant::now();
        match self.store.close(lease, std::slice::from_ref(&close)).await {
            Ok(_) => {
                info!(agent = %close.agent, classroom = %close.classroom, "a session's end that was refused is written");
                self.waiting.iter_mut().for_each(|waiting| waiting.due = waiting.due.min(now + MENDED));
            }
            // Another node ends the session.
            Err(StoreError::Fenced) => {}
            Err(StoreError::Refused(why)) => {
                if let Some(more) = self.said.pass() {
                    error!(
                        why, agent = %close.agent, classroom = %close.classroom, more, waiting = self.waiting.len() + 1,
                        "the database refuses a session's end; it is tried again later"
                    );
                }
                let pause = (2 * pause).min(PAUSE.1);
                self.wait(Waiting { due: now + pause, pause, close });
            }
            Err(StoreError::Unavailable(_) | StoreError::Overloaded) => {
                self.wait(Waiting { due: now + pause, pause, close });
            }
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        let place = self.waiting.partition_point(|other| other.due <= waiting.due);
        self.waiting.insert(place, waiting);
    }
}

async fn due(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}
