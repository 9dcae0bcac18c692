//! Where sessions go when their connection is over: disconnect runs for each, some after a while.
//!
//! Invariant: every session that comes here is given to disconnect exactly once, and [`DisconnectQueue::finish`] returns only
//! when all are written down. Those that are kept for clients who may come back are bounded: by `max_in_grace`, and once a
//! drain has begun by the connections that the node had.
mod kept;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use rollcall_schema::{LeftReason, Sid};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tracing::error;

use self::kept::Kept;
use crate::handler::{session::Session, table::Table};
use rollcall_base::names;

/// How many disconnects run at once: with more, a wave that leaves would hold up those who come meanwhile.
const AT_ONCE: usize = 256;

/// How long a client that a drain sent away may take to enter elsewhere.
const RETURN_WITHIN: Duration = Duration::from_secs(10);

/// How sessions of broken connections are kept.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// How long their clients may take to come back.
    pub time: Duration,
    /// How many are kept at most: with one more, the one that has waited longest leaves.
    pub max: usize,
}

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct DisconnectQueue {
    queue: mpsc::UnboundedSender<Message>,
    /// How many have come and are not written down yet.
    waiting: Arc<watch::Sender<usize>>,
    grace: Grace,
    /// Once a drain has begun: until when those who may come back are waited for.
    drained: Arc<watch::Sender<Option<Instant>>>,
}

struct Departure {
    session: Box<Session>,
    reason: LeftReason,
    due: Instant,
}

enum Message {
    Leave(Departure),
    TakenOver(Sid),
    /// Asks which are kept.
    Ask(oneshot::Sender<Vec<Sid>>),
}

/// The other end of [`DisconnectQueue`], to be run once there is a table.
pub struct DisconnectReceiver(mpsc::UnboundedReceiver<Message>);

impl DisconnectQueue {
    /// A queue; clients whose connection broke may come back within `grace`.
    #[must_use]
    pub fn new(grace: Grace) -> (Self, DisconnectReceiver) {
        let (queue, arrivals) = mpsc::unbounded_channel();
        let (waiting, drained) = (Arc::default(), Arc::default());
        (Self { queue, waiting, grace, drained }, DisconnectReceiver(arrivals))
    }

    /// A session whose connection is over.
    pub fn leave(&self, mut session: Box<Session>, reason: LeftReason) {
        metrics::gauge!(names::SESSIONS).decrement(1.0);
        let now = Instant::now();
        let due = match reason {
            LeftReason::Lost | LeftReason::TimedOut => now + self.grace.time,
            LeftReason::Drained => self.drained.borrow().map_or(now, |latest| latest.min(now + RETURN_WITHIN)),
            LeftReason::Closed | LeftReason::Kicked | LeftReason::NodeLost => now,
        };
        session.forget_rights();
        self.waiting.send_modify(|waiting| *waiting += 1);
        // The receiver lives as long as the process.
        let _ = self.queue.send(Message::Leave(Departure { session, reason, due }));
    }

    /// The connections whose sessions are kept for their clients to come back.
    pub async fn kept(&self) -> Vec<Sid> {
        let (answer, came) = oneshot::channel();
        let _ = self.queue.send(Message::Ask(answer));
        // The task lives as long as the process.
        came.await.unwrap_or_default()
    }

    /// Another connection has this one's session: if it is kept here, nobody is waited for any more.
    pub fn taken_over(&self, sid: Sid) {
        if *self.waiting.borrow() > 0 {
            let _ = self.queue.send(Message::TakenOver(sid));
        }
    }

    /// A drain begins: its sessions are kept for their clients to take over elsewhere, and nobody's longer than this.
    pub fn drain(&self, until: Instant) {
        self.drained.send_replace(Some(until));
    }

    /// Waits until all that came are written down.
    pub async fn finish(&self) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|waiting| *waiting == 0).await;
    }

    /// Runs disconnect for each that comes, until the task is dropped.
    pub async fn run(self, DisconnectReceiver(mut arrivals): DisconnectReceiver, table: Table) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut kept = Kept::default();
        let mut drained = self.drained.subscribe();
        loop {
            let departure = tokio::select! {
                message = arrivals.recv() => match message {
                    Some(Message::Leave(departure)) => self.keep(&mut kept, departure),
                    Some(Message::TakenOver(sid)) => kept.remove(sid),
                    Some(Message::Ask(answer)) => {
                        // Whoever asked may have gone.
                        let _ = answer.send(kept.sids());
                        None
                    }
                    None => return,
                },
                Ok(()) = drained.changed() => {
                    if let Some(latest) = *drained.borrow_and_update() {
                        kept.hasten(latest);
                    }
                    None
                }
                () = until(kept.first_due()) => kept.pop_first(),
            };
            let Some(departure) = departure else { continue };
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let call = table.disconnect(*departure.session, departure.reason);
            let waiting = Arc::clone(&self.waiting);
            tokio::spawn(async move {
                if AssertUnwindSafe(call).catch_unwind().await.is_err() {
                    error!("disconnect panicked; its session is left for another node, or for the next start");
                }
                drop(permit);
                waiting.send_modify(|waiting| *waiting -= 1);
            });
        }
    }

    /// Keeps a session that may be taken over; gives back the one that leaves now, if any does.
    fn keep(&self, kept: &mut Kept, mut departure: Departure) -> Option<Departure> {
        let latest = *self.drained.borrow();
        if let Some(latest) = latest {
            // It may have left before the drain began, and come here after.
            departure.due = departure.due.min(latest);
        }
        if departure.due <= Instant::now() {
            return Some(departure);
        }
        kept.insert(departure);
        if latest.is_none() && kept.len() > self.grace.max {
            metrics::counter!(names::DROPPED, "reason" => "grace_full").increment(1);
            return kept.pop_first();
        }
        None
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
