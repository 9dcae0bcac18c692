//! Puts row and keys back to what a connection's membership says, after a change of its lesson that was not done.
//!
//! Invariant: it goes on until both are right, however long SQL or Redis are away, or until the connection has ended: then the
//! session's end covers the rest. A late write of the change does no harm: the row's number is higher, and keys are touched
//! only when Redis cannot carry it out any more. What is written to Redis for a session that ends meanwhile is removed again.
use std::time::Duration;

use rollcall_base::names;
use rollcall_keys::{CALL_LIMIT, FailedJoin, KeyEntry, KeyField};
use rollcall_store::{RestoreLesson, StoreError};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{Presence, failure::Failure};

/// The first pause between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// What a change has left behind.
pub(crate) struct LeftBehind {
    /// The row as it was; none for a guest.
    pub(crate) row: Option<RestoreLesson>,
    /// Whether the row is as it was already.
    pub(crate) row_is_right: bool,
    /// The keys of the lesson that the connection is in, if it has any.
    pub(crate) keys: Option<KeyEntry>,
    /// A field that Redis has, or may get until that moment.
    pub(crate) field: Option<(KeyField, Instant)>,
    /// The task of an earlier change, which was given up and removes what that one left.
    pub(crate) earlier: Option<JoinHandle<()>>,
}

/// The task that puts it back. The drop of this value tells the task that the connection has ended.
#[derive(Debug)]
pub(crate) struct LessonRestore {
    task: JoinHandle<()>,
    hurry: watch::Sender<()>,
}

impl LessonRestore {
    /// Starts it.
    pub(crate) fn spawn(presence: &Presence, left: LeftBehind) -> Self {
        let (hurry, hurried) = watch::channel(());
        let restore = Restore { presence: presence.clone(), left, hurried, wrote: None };
        Self { task: presence.undos().spawn(restore.run()), hurry }
    }

    /// From now on the task only removes what the change left in Redis, as it does once the connection has ended.
    pub(crate) fn give_up(self) -> JoinHandle<()> {
        self.task
    }

    /// Waits until it is done. A pause between two tries ends now.
    pub(crate) async fn done(&mut self) {
        self.hurry.send_replace(());
        // One that panicked is done as well: what it left is put right with the session's end.
        let _ = (&mut self.task).await;
    }
}

struct Restore {
    presence: Presence,
    left: LeftBehind,
    hurried: watch::Receiver<()>,
    /// Until when Redis may write the keys of the lesson that the connection is in, once that was tried.
    wrote: Option<Instant>,
}

impl Restore {
    async fn run(mut self) {
        let mut pause = PAUSE.0;
        while let Err(error) = self.attempt().await {
            self.presence.undos().failed(&error);
            let _ = timeout(pause, self.hurried.changed()).await;
            pause = (2 * pause).min(PAUSE.1);
        }
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        if !self.left.row_is_right {
            self.put_row_back().await?;
            self.left.row_is_right = true;
        }
        let earlier = self.left.earlier.take();
        if earlier.is_none() && self.left.field.is_none() {
            return Ok(());
        }
        if let Some(earlier) = earlier {
            let _ = earlier.await;
        }
        if let Some((field, until)) = self.left.field.clone() {
            sleep_until(until).await;
            if let Some(entry) = self.left.keys.clone() {
                self.put_keys_back(&entry).await?;
            }
            // The cleanup removes the field, or gives it to another connection of the user that is in that lesson.
            self.presence.cleanup.leave(field);
        }
        tokio::select! {
            () = self.presence.cleanup.finish() => {}
            // Then no later change of this connection waits for the cleanup.
            () = over(&mut self.hurried) => {}
        }
        Ok(())
    }

    /// False where the connection has ended, or has lost its session: then its end covers the row, and the keys are nobody's.
    async fn put_row_back(&self) -> Result<bool, StoreError> {
        if self.hurried.has_changed().is_err() {
            return Ok(false);
        }
        let Some(row) = &self.left.row else { return Ok(true) };
        match self.presence.sessions.restore_lesson(row.clone()).await {
            Err(StoreError::Fenced) => Ok(false),
            Err(error @ StoreError::Refused(_)) => {
                metrics::counter!(names::DROPPED, "reason" => "restore_refused").increment(1);
                self.presence.undos().failed(&error);
                Ok(true)
            }
            answer => answer,
        }
    }

    async fn put_keys_back(&mut self, entry: &KeyEntry) -> Result<(), Failure> {
        if self.put_row_back().await? {
            self.wrote = Some(Instant::now() + CALL_LIMIT);
            if let Err(FailedJoin { error, unsettled }) = self.presence.keys.join(entry, Some(&entry.lesson)).await {
                self.presence.cleanup.leave_unsettled(unsettled, entry.sid);
                return Err(error.into());
            }
            if self.put_row_back().await? {
                return Ok(());
            }
        }
        if let (Some(until), Some(field)) = (self.wrote, entry.field()) {
            sleep_until(until).await;
            self.presence.cleanup.leave(field);
        }
        Ok(())
    }
}

/// Returns when the connection has ended, or the task was given up.
async fn over(hurried: &mut watch::Receiver<()>) {
    while hurried.changed().await.is_ok() {}
}
