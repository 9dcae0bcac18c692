//! The store's threads, and what it remembers between calls.
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use rollcall_base::tasks::{TaskEnded, Tasks};
use tokio::sync::{OnceCell, watch};
use uuid::Uuid;

use super::{db_thread::DbThread, file};
use crate::{Store, StoreError, session_quarantine::SessionQuarantine};

/// The store in SQLite.
pub struct SqliteStore {
    pub(super) path: PathBuf,
    pub(super) writer: DbThread,
    pub(super) reader: DbThread,
    /// The lock, which is held from the registration until the process ends.
    pub(super) lock: OnceCell<File>,
    /// A number that grows with each commit that may have put rows into the outbox.
    pub(super) wake: watch::Sender<u64>,
    /// A lock that the relay holds while it reads the outbox.
    pub(super) relay: Arc<tokio::sync::Mutex<()>>,
    pub(super) quarantine: Arc<SessionQuarantine>,
    /// Whether published events are kept for the webhook.
    pub(super) keep_published: bool,
    /// The threads, whose end is reported.
    threads: Tasks,
    /// The incarnation. It never changes, because the file is not put back under a running process.
    pub(super) incarnation: watch::Sender<Option<Uuid>>,
}

impl SqliteStore {
    /// Opens the file, and makes it if it is missing.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] if that is not possible.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let refused = |error: std::io::Error| StoreError::Refused(error.to_string());
        let threads = Tasks::default();
        Ok(Self {
            writer: DbThread::writer(&threads, file::open_writer(&path)?, file::open(&path)?).map_err(refused)?,
            reader: DbThread::reader(&threads, file::open(&path)?).map_err(refused)?,
            path,
            lock: OnceCell::new(),
            wake: watch::Sender::default(),
            relay: Arc::default(),
            quarantine: Arc::default(),
            keep_published: false,
            threads,
            incarnation: watch::Sender::new(Some(Uuid::nil())),
        })
    }

    /// Makes the store keep published events for the webhook until its cursor has passed them
    /// ([`crate::WebhookCursors`]).
    #[must_use]
    pub fn keeping_published(self, keep_published: bool) -> Self {
        Self { keep_published, ..self }
    }

    pub(super) fn wake(&self) {
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

    async fn ping(&self) -> Result<(), StoreError> {
        self.reader.call("ping", |_| Ok(())).await
    }
}
