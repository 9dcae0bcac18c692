//! Puts row and keys back to what a connection's membership says, after a change of its lesson was not completed.
//!
//! Invariant: the task goes on until both are right, however long SQL or Redis are away, or until the connection has
//! ended, because the session's end corrects the rest. A late write of the change does no harm, because the row has a
//! higher number, and the keys are changed only when Redis can no longer carry out the change. Keys that are written
//! for a session that ends meanwhile are removed again.
use std::time::Duration;

use rollcall_base::names;
use rollcall_keys::{CALL_LIMIT, EarlierField, FailedJoin, KeyEntry, KeyField};
use rollcall_store::{RestoreLesson, StoreError};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{Presence, failure::Failure};

/// The first pause between two attempts, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// What a change that was not completed has left behind.
pub(crate) struct LeftBehind {
    /// The row as it was before. `None` for a guest.
    pub(crate) row: Option<RestoreLesson>,
    /// Whether the row is already as it was before.
    pub(crate) row_is_right: bool,
    /// The keys of the lesson that the connection is in, if it has any.
    pub(crate) keys: Option<KeyEntry>,
    /// A field that Redis has, or may get until this time.
    pub(crate) field: Option<(KeyField, Instant)>,
    /// The task of an earlier change. It was given up, and now only removes what that change left in Redis.
    pub(crate) earlier: Option<JoinHandle<()>>,
}

/// The task that puts a change back. Dropping this value tells the task that the connection has ended.
#[derive(Debug)]
pub(crate) struct LessonRestore {
    task: JoinHandle<()>,
    hurry: watch::Sender<()>,
}

impl LessonRestore {
    /// Starts the task.
    pub(crate) fn spawn(presence: &Presence, left: LeftBehind) -> Self {
        let (hurry, hurried) = watch::channel(());
        let restore = Restore { presence: presence.clone(), left, hurried, wrote: None };
        Self { task: presence.undos().spawn(restore.run()), hurry }
    }

    /// Makes the task only remove what the change left in Redis, as if the connection had ended.
    pub(crate) fn give_up(self) -> JoinHandle<()> {
        self.task
    }

    /// Waits until the task is done. A pause between two attempts ends now.
    pub(crate) async fn done(&mut self) {
        self.hurry.send_replace(());
        // A task that panicked is done as well: the session's end corrects what it left.
        let _ = (&mut self.task).await;
    }
}

struct Restore {
    presence: Presence,
    left: LeftBehind,
    hurried: watch::Receiver<()>,
    /// The time until which Redis may write the keys of the lesson that the connection is in, if that was tried.
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
            // The cleanup removes the field, or sets it to another connection of the user that is in that lesson.
            self.presence.cleanup.leave(field);
        }
        tokio::select! {
            () = self.presence.cleanup.finish() => {}
            // The connection has ended, or the task was given up, so no later change of this connection waits for the
            // cleanup.
            () = over(&mut self.hurried) => {}
        }
        Ok(())
    }

    /// Puts the row back. Returns false if the connection has ended or has lost its session. Then the end of the
    /// session corrects the row, and the keys must be removed.
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
            let role = entry.user.as_ref().map(|(_, role)| *role);
            let own = role.map(|role| EarlierField { lesson: entry.lesson.clone(), role, stays: true });
            if let Err(FailedJoin { error, unsettled }) = self.presence.keys.join(entry, own.as_ref()).await {
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
