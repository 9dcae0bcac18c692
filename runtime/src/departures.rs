//! Where sessions go when their connection is over: disconnect runs for each, some after a while.
//!
//! Invariant: every session that comes here is given to disconnect exactly once, and [`Departures::finish`] returns only
//! when all are written down. Bounded by the sessions there are: each comes once.
use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use rollcall_schema::LeftReason;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tracing::error;

use crate::{dispatch::Table, names, session::Session};

/// How many disconnects run at once: with more, a wave that leaves would hold up those who come meanwhile.
const AT_ONCE: usize = 256;

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Departures {
    queue: mpsc::UnboundedSender<Departure>,
    /// How many have come and are not written down yet.
    waiting: Arc<watch::Sender<usize>>,
    grace: Duration,
    /// Until when those who may come back are waited for, once a drain has begun.
    drained: Arc<watch::Sender<Option<Instant>>>,
}

struct Departure {
    session: Box<Session>,
    reason: LeftReason,
    due: Instant,
}

/// The other end of [`Departures`], to be run once there is a table.
pub struct Arrivals(mpsc::UnboundedReceiver<Departure>);

impl Departures {
    /// A queue; a connection that broke is given `grace` to come back.
    #[must_use]
    pub fn new(grace: Duration) -> (Self, Arrivals) {
        let (queue, arrivals) = mpsc::unbounded_channel();
        let (waiting, drained) = (Arc::default(), Arc::default());
        (Self { queue, waiting, grace, drained }, Arrivals(arrivals))
    }

    /// A session whose connection is over.
    pub fn leave(&self, session: Box<Session>, reason: LeftReason) {
        metrics::gauge!(names::SESSIONS).decrement(1.0);
        let now = Instant::now();
        let due = match reason {
            LeftReason::Lost | LeftReason::TimedOut => now + self.grace,
            LeftReason::Drained => self.drained.borrow().unwrap_or(now),
            LeftReason::Closed | LeftReason::Kicked | LeftReason::NodeLost => now,
        };
        self.waiting.send_modify(|waiting| *waiting += 1);
        // The receiver lives as long as the process.
        let _ = self.queue.send(Departure { session, reason, due });
    }

    /// A drain begins: its sessions are kept until then, for their clients to take over elsewhere, and nobody's longer.
    pub fn drain(&self, until: Instant) {
        self.drained.send_replace(Some(until));
    }

    /// Waits until all that came are written down.
    pub async fn finish(&self) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|waiting| *waiting == 0).await;
    }

    /// Runs disconnect for each that comes, until the task is dropped.
    pub async fn run(self, Arrivals(mut arrivals): Arrivals, table: Table) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut later: VecDeque<Departure> = VecDeque::new();
        let mut drained = self.drained.subscribe();
        loop {
            let departure = tokio::select! {
                departure = arrivals.recv() => match departure {
                    Some(departure) if departure.due <= Instant::now() => departure,
                    Some(mut departure) => {
                        // It may have left before the drain began, and come here after.
                        departure.due = drained.borrow().map_or(departure.due, |last| last.min(departure.due));
                        // Nearly sorted already: the waits are the same for all of a kind.
                        let place = later.partition_point(|other| other.due <= departure.due);
                        later.insert(place, departure);
                        continue;
                    }
                    None => return,
                },
                Ok(()) = drained.changed() => {
                    if let Some(last) = *drained.borrow_and_update() {
                        later.iter_mut().for_each(|departure| departure.due = departure.due.min(last));
                    }
                    continue;
                }
                () = due(later.front()) => match later.pop_front() {
                    Some(departure) => departure,
                    None => continue,
                },
            };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let call = table.disconnect(*departure.session, departure.reason);
            let waiting = Arc::clone(&self.waiting);
            tokio::spawn(async move {
                if AssertUnwindSafe(call).catch_unwind().await.is_err() {
                    error!("disconnect panicked; its session is left for another node, or for the next start");
                }
                drop(place);
                waiting.send_modify(|waiting| *waiting -= 1);
            });
        }
    }
}

async fn due(first: Option<&Departure>) {
    match first {
        Some(departure) => tokio::time::sleep_until(departure.due).await,
        None => std::future::pending().await,
    }
}
