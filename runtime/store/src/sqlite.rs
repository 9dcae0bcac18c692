//! The store of one node: an SQLite file, through rusqlite.
//!
//! Invariant: at most one process serves a file. `register` takes the lock that says so, so `migrate`, `load` and
//! people with the sqlite3 tool work beside a serving process.
//!
//! What was answered survives the death of the process, kill -9 too: it is in the write-ahead log, in the kernel's
//! hands (`synchronous = normal`). The log is synced four times a second while there are writes ([`desk`]), so a loss
//! of power may cost the last quarter of a second, as a whole and in order, but never the file.
mod db_thread;
mod file;
mod lease;
mod load;
mod outbox;
mod read;
mod removals;
mod restored;
mod sessions;
mod stale_fields;
mod verify;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, NodeId, SessionId, Sid};
use rusqlite::Connection;
use tokio::{
    sync::{OnceCell, watch},
    task::spawn_blocking,
};
use uuid::Uuid;

use self::{db_thread::DbThread, load::SqliteLoad, outbox::SqliteOutbox};
use super::{
    Backlog, Close, Closed, HeartbeatReply, Join, Joined, KeyField, Lease, LessonMembership, Load, Open, Opened,
    Outbox, Registration, Remembered, Restored, RollbackJoin, StaleField, Standing, Store, StoreError,
    quarantine::Quarantine,
};
use rollcall_base::tasks::{TaskEnded, Tasks};

/// SQLite.
pub struct SqliteStore {
    path: PathBuf,
    writer: DbThread,
    reader: DbThread,
    /// Of the process that serves, until it ends.
    lock: OnceCell<File>,
    /// Counts up with each commit that may have put rows into the outbox.
    wake: watch::Sender<u64>,
    /// Held by the relay that reads the outbox.
    relay: Arc<tokio::sync::Mutex<()>>,
    refused: Arc<Quarantine>,
    /// Hears of the desks' ends.
    threads: Tasks,
    /// Never another: the file is not put back under a running process.
    incarnation: watch::Sender<Option<Uuid>>,
}

impl SqliteStore {
    /// Opens the file, and makes it where it is missing.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where that cannot be done.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let desks = |error: std::io::Error| StoreError::Refused(error.to_string());
        let threads = Tasks::default();
        Ok(Self {
            writer: DbThread::writer(&threads, lease::notices(file::open(&path)?)?, file::open(&path)?)
                .map_err(desks)?,
            reader: DbThread::reader(&threads, file::open(&path)?).map_err(desks)?,
            path,
            lock: OnceCell::new(),
            wake: watch::Sender::default(),
            relay: Arc::default(),
            refused: Arc::default(),
            threads,
            incarnation: watch::Sender::new(Some(Uuid::nil())),
        })
    }

    fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn shared(&self) -> bool {
        false
    }

    async fn failed(&self) -> TaskEnded {
        self.threads.failed().await
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let migrated = spawn_blocking(move || file::migrate(&path)).await;
        migrated.unwrap_or_else(|_| Err(StoreError::Unavailable("the migration panicked".to_owned())))
    }

    async fn missing_migrations(&self) -> Result<Vec<&'static str>, StoreError> {
        self.reader.call("missing", file::missing).await
    }

    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
        self.writer.call("probe", move |connection| lease::probe(connection, lease, ttl)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reader.call("ping", |_| Ok(())).await
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.reader.call("installation", read::installation).await
    }

    async fn register(&self, registration: &Registration) -> Result<Lease, StoreError> {
        self.lock.get_or_try_init(async || lease::lock(&self.path)).await?;
        let registration = registration.clone();
        let registered = self.writer.call("register", move |connection| lease::register(connection, &registration));
        let lease = registered.await?;
        self.wake();
        Ok(lease)
    }

    async fn renew_lease(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError> {
        self.writer.call("pulse", move |connection| lease::pulse(connection, lease, ttl)).await
    }

    async fn ack_takeovers(&self, _: NodeId, replaced: &[Sid]) -> Result<(), StoreError> {
        let replaced = replaced.to_vec();
        self.writer.call("told", move |connection| lease::told(connection, &replaced)).await
    }

    async fn reap(&self, lease: Lease, most: usize) -> Result<usize, StoreError> {
        let refused = Arc::clone(&self.refused);
        let sessions =
            self.writer.call("reap", move |connection| lease::reap(connection, &refused, lease, most)).await?;
        if sessions > 0 {
            self.wake();
        }
        Ok(sessions)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.reader.call("backlog", read::backlog).await
    }

    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError> {
        self.writer.call("retire", move |connection| lease::retire(connection, lease)).await
    }

    async fn open(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError> {
        let batch = batch.to_vec();
        let opened = self.writer.call("open", move |connection| sessions::open(connection, lease, &batch)).await?;
        self.wake();
        Ok(opened)
    }

    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError> {
        let batch = batch.to_vec();
        self.writer.call("join", move |connection| sessions::join(connection, lease, &batch)).await
    }

    async fn rollback(&self, lease: Lease, batch: &[RollbackJoin]) -> Result<Vec<()>, StoreError> {
        let batch = batch.to_vec();
        self.writer.call("restore", move |connection| sessions::restore(connection, lease, &batch)).await
    }

    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError> {
        let batch = batch.to_vec();
        let closed = self.writer.call("close", move |connection| sessions::close(connection, lease, &batch)).await?;
        self.wake();
        Ok(closed)
    }

    fn incarnation(&self) -> watch::Receiver<Option<Uuid>> {
        self.incarnation.subscribe()
    }

    async fn verify(&self, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError> {
        let batch = batch.to_vec();
        let verified = self.writer.call("verify", move |connection| verify::verify(connection, lease, &batch)).await?;
        self.wake();
        Ok(verified)
    }

    async fn owned_sessions(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, Close)>, StoreError> {
        self.reader.call("owned", move |connection| verify::owned(connection, node, after, max)).await
    }

    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError> {
        self.reader.call("knows", move |connection| verify::knows(connection, node)).await
    }

    async fn prepare_restored(&self) -> Result<Restored, StoreError> {
        let path = self.path.clone();
        let restored = spawn_blocking(move || restored::make_anew(&path)).await;
        restored.unwrap_or_else(|_| Err(StoreError::Unavailable("it panicked".to_owned())))
    }

    async fn add_stale_fields(&self, node: NodeId, fields: &[KeyField], ended: &[Sid]) -> Result<(), StoreError> {
        let (fields, ended) = (fields.to_vec(), ended.to_vec());
        let work = move |connection: &Connection| {
            stale_fields::release(connection, &ended)?;
            stale_fields::add(connection, node, &fields)
        };
        self.writer.call("leave", work).await
    }

    async fn stale_fields(&self, node: NodeId, most: usize) -> Result<Vec<(i64, StaleField)>, StoreError> {
        self.reader.call("leavings", move |connection| stale_fields::read(connection, node, most)).await
    }

    async fn forget_stale_fields(
        &self,
        node: NodeId,
        done: &[(i64, StaleField)],
        keep: bool,
    ) -> Result<(), StoreError> {
        let done = done.to_vec();
        self.writer.call("forget", move |connection| stale_fields::forget(connection, node, &done, keep)).await
    }

    async fn held_stale_fields(&self, node: NodeId, after: i64, most: usize) -> Result<Vec<(i64, Sid)>, StoreError> {
        self.reader.call("held", move |connection| stale_fields::held(connection, node, after, most)).await
    }

    async fn repeat_removals(&self, node: NodeId, most: usize) -> Result<usize, StoreError> {
        self.writer.call("repeat", move |connection| removals::repeat(connection, node, most)).await
    }

    async fn expire_removals(&self, minute: i64, most: usize) -> Result<(i64, bool), StoreError> {
        self.writer.call("expire", move |connection| removals::expire(connection, minute, most)).await
    }

    async fn open_outbox(&self) -> Result<Box<dyn Outbox>, StoreError> {
        Ok(Box::new(SqliteOutbox::new(self)))
    }

    async fn lesson_memberships(
        &self,
        node: NodeId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<LessonMembership>, StoreError> {
        self.reader.call("placed", move |connection| read::placed(connection, node, after, most)).await
    }

    async fn agents(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<(SessionId, AgentId)>, StoreError> {
        self.reader.call("agents", move |connection| read::agents(connection, classroom, after, most)).await
    }

    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
        let classrooms = classrooms.to_vec();
        self.reader.call("count", move |connection| read::count(connection, &classrooms)).await
    }

    async fn has_no_lesson(&self) -> Result<bool, StoreError> {
        self.reader.call("is_empty", read::is_empty).await
    }

    async fn begin_load(&self) -> Result<Box<dyn Load>, StoreError> {
        Ok(Box::new(SqliteLoad::begin(self.path.clone()).await?))
    }
}
