//! The sessions whose connections have ended. The handler of disconnect runs for each, for some after a time of grace.
//!
//! Invariant: the handler of disconnect gets every session that comes here exactly once, and
//! [`DisconnectQueue::finish`] returns only when the handler has run for all of them. The number of sessions in grace
//! is limited to `max_in_grace`, and after a drain has begun to the number of connections that the node had.
mod in_grace;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use rollcall_schema::{KickCause, LeftReason, LessonId, SessionError, Sid};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tracing::error;

use self::in_grace::{Disconnected, InGrace};
use crate::handler::{handlers::Handlers, session::Session};
use rollcall_base::names;

/// How many disconnects run at once. With more, many leaves at once would delay the connects that come meanwhile.
const MAX_CONCURRENT: usize = 256;

/// How long a client may take to connect to another node after a drain has closed its connection.
const RETURN_WITHIN: Duration = Duration::from_secs(10);

/// How long sessions of broken connections wait for their clients.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// How long a client may take to come back.
    pub time: Duration,
    /// The maximum number of sessions that wait. If there is one more, the session that has waited longest ends.
    pub max: usize,
}

/// The sender of sessions to the queue. It is cheap to clone.
#[derive(Clone)]
pub struct DisconnectQueue {
    queue: mpsc::UnboundedSender<Message>,
    /// The number of sessions whose disconnect is not done.
    unfinished: Arc<watch::Sender<usize>>,
    grace: Grace,
    /// `Some` after a drain has begun: the time when the last session in grace ends.
    drain_until: Arc<watch::Sender<Option<Instant>>>,
}

enum Message {
    Leave(Disconnected),
    /// The connection, and the error that its client would have been told.
    TakenOver(Sid, SessionError),
    LeaveLesson(Sid, LessonId),
    /// Asks for the sessions in grace.
    AskInGrace(oneshot::Sender<Vec<Sid>>),
}

/// The receiver for [`DisconnectQueue::run`].
pub struct DisconnectReceiver(mpsc::UnboundedReceiver<Message>);

impl DisconnectQueue {
    /// Creates a queue. Clients whose connections broke may come back within `grace`.
    #[must_use]
    pub fn new(grace: Grace) -> (Self, DisconnectReceiver) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let (unfinished, drain_until) = (Arc::default(), Arc::default());
        (Self { queue, unfinished, grace, drain_until }, DisconnectReceiver(receiver))
    }

    /// Gives a session whose connection has ended to the queue.
    pub fn leave(&self, mut session: Box<Session>, reason: LeftReason) {
        metrics::gauge!(names::SESSIONS).decrement(1.0);
        let now = Instant::now();
        let due = match reason {
            LeftReason::Lost | LeftReason::TimedOut => now + self.grace.time,
            LeftReason::Drained => self.drain_until.borrow().map_or(now, |until| until.min(now + RETURN_WITHIN)),
            LeftReason::Closed | LeftReason::Kicked(_) | LeftReason::NodeLost => now,
        };
        session.forget_rights();
        self.unfinished.send_modify(|unfinished| *unfinished += 1);
        // The receiver lives as long as the process, so this cannot fail.
        let _ = self.queue.send(Message::Leave(Disconnected { session, reason, due }));
    }

    /// Returns the connections whose sessions are in grace.
    pub async fn in_grace(&self) -> Vec<Sid> {
        let (answer, came) = oneshot::channel();
        let _ = self.queue.send(Message::AskInGrace(answer));
        // The task lives as long as the process, so the answer comes.
        came.await.unwrap_or_default()
    }

    /// Runs disconnect now for the session of this connection if the session is in grace here, because another
    /// connection has the session, or an operator has ended it. `error` is the error that the client would have been
    /// told.
    pub fn taken_over(&self, sid: Sid, error: SessionError) {
        if *self.unfinished.borrow() > 0 {
            let _ = self.queue.send(Message::TakenOver(sid, error));
        }
    }

    /// Takes the session of this connection out of its lesson if the session is in grace here.
    pub fn leave_lesson(&self, sid: Sid, lesson: LessonId) {
        if *self.unfinished.borrow() > 0 {
            let _ = self.queue.send(Message::LeaveLesson(sid, lesson));
        }
    }

    /// Begins a drain: sessions wait until their clients take them over on another node, but no session waits beyond
    /// this time.
    pub fn drain(&self, until: Instant) {
        self.drain_until.send_replace(Some(until));
    }

    /// Waits until disconnect has run for all sessions that came.
    pub async fn finish(&self) {
        let mut unfinished = self.unfinished.subscribe();
        let _ = unfinished.wait_for(|unfinished| *unfinished == 0).await;
    }

    /// Runs disconnect for each session until the task is dropped. `leave_lesson` takes a session in grace out of its
    /// lesson.
    pub async fn run(
        self,
        DisconnectReceiver(mut receiver): DisconnectReceiver,
        handlers: Handlers,
        leave_lesson: impl Fn(&mut Session) + Send + Sync,
    ) {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT));
        let mut in_grace = InGrace::default();
        let mut drain_until = self.drain_until.subscribe();
        loop {
            let disconnected = tokio::select! {
                message = receiver.recv() => match message {
                    Some(Message::Leave(disconnected)) => self.begin_grace(&mut in_grace, disconnected),
                    Some(Message::TakenOver(sid, error)) => in_grace.remove(sid).map(|disconnected| Disconnected {
                        reason: LeftReason::Kicked(Some(KickCause::Told(error))),
                        ..disconnected
                    }),
                    Some(Message::LeaveLesson(sid, lesson)) => {
                        let session = in_grace.session(sid).filter(|session| session.lesson() == Some(&lesson));
                        session.into_iter().for_each(&leave_lesson);
                        None
                    }
                    Some(Message::AskInGrace(answer)) => {
                        // The caller may have stopped waiting.
                        let _ = answer.send(in_grace.sids());
                        None
                    }
                    None => return,
                },
                Ok(()) = drain_until.changed() => {
                    if let Some(until) = *drain_until.borrow_and_update() {
                        in_grace.limit_to(until);
                    }
                    None
                }
                () = sleep_until(in_grace.first_due()) => in_grace.pop_first(),
            };
            let Some(disconnected) = disconnected else { continue };
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let call = handlers.disconnect(*disconnected.session, disconnected.reason);
            let unfinished = Arc::clone(&self.unfinished);
            tokio::spawn(async move {
                if AssertUnwindSafe(call).catch_unwind().await.is_err() {
                    error!("disconnect panicked; its session is left for another node, or for the next start");
                }
                drop(permit);
                unfinished.send_modify(|unfinished| *unfinished -= 1);
            });
        }
    }

    /// Keeps a session whose client may come back. Returns the session that ends now if there is one.
    fn begin_grace(&self, in_grace: &mut InGrace, mut disconnected: Disconnected) -> Option<Disconnected> {
        let until = *self.drain_until.borrow();
        if let Some(until) = until {
            // The session may have left before the drain began, and arrive here afterwards.
            disconnected.due = disconnected.due.min(until);
        }
        if disconnected.due <= Instant::now() {
            return Some(disconnected);
        }
        in_grace.insert(disconnected);
        if until.is_none() && in_grace.len() > self.grace.max {
            metrics::counter!(names::DROPPED, "reason" => "grace_full").increment(1);
            return in_grace.pop_first();
        }
        None
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
