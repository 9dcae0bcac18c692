//! Checks the node's sessions after the database has lost its last commits (PROTOCOL 5): a replica that lagged was
//! promoted, or a backup was restored.
//!
//! Invariant: after each such loss, every session in this node's memory is compared once with its row, including
//! sessions that ended a moment ago. If the row is gone, history and agent.left are written from memory, and then the
//! connection is closed with a recoverable error. Rows of this node without a connection are ended. If no commits were
//! lost, the check reads nothing.
use std::{sync::Arc, time::Duration};

use rollcall_schema::{SessionError, SessionId, Sid};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tracing::{info, warn};
use uuid::Uuid;

use crate::gateway::{Enumerate, FindMissing, Mailboxes, Page, WorkerCommand, disconnect_queue::DisconnectQueue};
use rollcall_base::names;
use rollcall_presence::RecentEnds;
use rollcall_store::{Close, Lease, Remembered, Store, StoreError};

/// How many sessions a statement, or a command to a worker, has.
const PAGE: usize = 500;
/// The pause between two tries while the database is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The time between two groups of connections that are closed.
const STEP: Duration = Duration::from_millis(50);

/// The parts that the check uses.
pub struct SessionCheck {
    /// The store with the sessions' rows.
    pub store: Arc<dyn Store>,
    /// The connections.
    pub mailboxes: Mailboxes,
    /// The sessions whose connections have ended.
    pub disconnects: DisconnectQueue,
    /// The sessions that ended a moment ago.
    pub recent_ends: RecentEnds,
    /// The node's lease.
    pub lease: watch::Receiver<Lease>,
    /// The time over which connections are closed.
    pub spread: Duration,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a worker has ended")]
    Workers,
}

impl SessionCheck {
    /// Checks the sessions after each loss until the task is dropped. `began` is the database's incarnation when this
    /// node started. If the node registers again after a loss, the check runs again, because the node's lease may have
    /// been taken over before the node noticed the loss.
    pub async fn run(self, began: Option<Uuid>) {
        let (mut incarnation, mut lease) = (self.store.incarnation(), self.lease.clone());
        let mut checked = (began, lease.borrow().node);
        loop {
            let found = (*incarnation.borrow_and_update(), lease.borrow_and_update().node);
            if began.is_some() && found.0 != began && found != checked {
                metrics::counter!(names::SESSION_CHECKS).increment(1);
                while let Err(error) = self.check().await {
                    warn!(%error, "the check of this node's sessions failed and starts again");
                    sleep(RETRY_AFTER).await;
                }
            }
            checked = found;
            let changed = tokio::select! {
                changed = incarnation.changed() => changed,
                changed = lease.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Checks all sessions once. The check may be repeated from its beginning.
    async fn check(&self) -> Result<(), Failure> {
        let mut closing = Vec::new();
        let (busy, mut later) = mpsc::unbounded_channel();
        for worker in 0..self.mailboxes.len() {
            let mut from = Some(0);
            while let Some(slot) = from {
                let (page, came) = oneshot::channel();
                let enumerate = Enumerate { from: slot, max: PAGE, page, busy: busy.clone() };
                self.mailboxes.to(worker, WorkerCommand::Enumerate(enumerate)).await;
                let Page { sessions, next } = came.await.map_err(|_| Failure::Workers)?;
                self.verify(&sessions, &mut closing).await?;
                from = next;
            }
        }
        drop(busy);
        // The sessions of running handlers come when their handlers are done.
        let mut sessions = Vec::with_capacity(PAGE);
        while later.recv_many(&mut sessions, PAGE).await > 0 {
            self.verify(&sessions, &mut closing).await?;
            sessions.clear();
        }
        for ends in self.recent_ends.all().chunks(PAGE) {
            // These sessions have no connection any more, so none is closed.
            self.verify(ends, &mut Vec::new()).await?;
        }
        let ended = self.end_rows().await?;
        info!(closing = closing.len(), rows = ended, "sessions are checked after the database lost commits");
        self.close(closing).await;
        Ok(())
    }

    async fn verify(&self, sessions: &[Remembered], closing: &mut Vec<(Sid, SessionError)>) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let lease = *self.lease.borrow();
        let standings = self.store.verify(lease, sessions).await?;
        let told =
            sessions.iter().zip(standings).filter_map(|(session, standing)| Some((session.sid, standing.error()?)));
        closing.extend(told);
        Ok(())
    }

    /// Ends the rows of this node whose connections have ended, because the database lost those ends.
    async fn end_rows(&self) -> Result<usize, Failure> {
        let (mut after, mut ended) = (SessionId(0), 0);
        loop {
            let lease = *self.lease.borrow();
            let rows = self.store.owned_sessions(lease.node, after, PAGE).await?;
            let Some((last, _)) = rows.last() else { return Ok(ended) };
            after = *last;
            let missing = self.missing(rows.iter().map(|(_, close)| close.sid).collect()).await?;
            let ends: Vec<Close> =
                rows.into_iter().map(|(_, close)| close).filter(|close| missing.contains(&close.sid)).collect();
            ended += ends.len();
            match self.store.close(lease, &ends).await {
                Ok(_) => {}
                // At least one of these ends is refused, so each is written in its own transaction.
                Err(StoreError::Refused(_)) => self.end_singly(lease, &ends).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn end_singly(&self, lease: Lease, ends: &[Close]) -> Result<(), StoreError> {
        for end in ends {
            match self.store.close(lease, std::slice::from_ref(end)).await {
                Ok(_) => {}
                Err(StoreError::Refused(why)) => {
                    metrics::counter!(names::DROPPED, "reason" => "close_refused").increment(1);
                    warn!(why, agent = %end.agent, "the end of a session without a connection is refused");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the sids that have no connection on this node and whose sessions do not wait for their clients either.
    async fn missing(&self, mut sids: Vec<Sid>) -> Result<Vec<Sid>, Failure> {
        for worker in 0..self.mailboxes.len() {
            let (answer, came) = oneshot::channel();
            self.mailboxes.to(worker, WorkerCommand::FindMissing(FindMissing { sids, answer })).await;
            sids = came.await.map_err(|_| Failure::Workers)?;
        }
        // The queue is asked last, because a session goes from its worker to the queue.
        let kept = self.disconnects.in_grace().await;
        sids.retain(|sid| !kept.contains(sid));
        Ok(sids)
    }

    async fn close(&self, closing: Vec<(Sid, SessionError)>) {
        let steps = usize::try_from(self.spread.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX).max(1);
        for group in closing.chunks(closing.len().div_ceil(steps).max(1)) {
            for (sid, error) in group {
                self.mailboxes.close(*sid, *error).await;
            }
            sleep(STEP).await;
        }
    }
}
