//! A thread that owns a connection: SQLite blocks, and has one writer at a time anyway.
//!
//! The writer's desk is a group commit: whatever waits runs in one transaction, each piece of work in a savepoint of
//! its own so that one that fails takes nothing with it, and all are answered after the commit. Work runs in the order
//! of its arrival, also when its caller gave up: what follows a write of unknown outcome sees how it ended.
use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode};
use tokio::{sync::oneshot, time::timeout};

use crate::{failpoint, names, store::StoreError, tasks::Tasks};

/// For a call, with its wait in the queue.
const LIMIT: Duration = Duration::from_millis(1500);
/// Calls that may wait; each is a batch.
const QUEUE: usize = 1024;
/// Calls in one transaction.
const MOST: usize = 64;
/// Between two checkpoints.
const CHECKPOINT: Duration = Duration::from_millis(250);

/// Called with the fate of the transaction.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Called with the connection, or with the reason why there is no transaction.
type Work = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Reply + Send>;

/// Where work is handed in. The thread ends with the last clone.
#[derive(Clone)]
pub(super) struct Desk(SyncSender<Work>);

impl Desk {
    /// A desk whose work is written in transactions. `aside` folds the log into the file meanwhile: the syncs that
    /// takes would hold up every write.
    pub(super) fn writer(threads: &Tasks, connection: Connection, aside: Connection) -> io::Result<Self> {
        let (committed, commits) = sync_channel(1);
        threads.thread("sqlite-checkpoint", move || checkpoint(&aside, &commits))?;
        Self::spawn(threads, "sqlite-writer", move |queue| serve_writes(&connection, &queue, &committed))
    }

    /// A desk whose work only reads: what was committed when it runs.
    pub(super) fn reader(threads: &Tasks, connection: Connection) -> io::Result<Self> {
        Self::spawn(threads, "sqlite-reader", move |queue| {
            for work in queue {
                failpoint::reach("sqlite-reader");
                work(Ok(&connection))(Ok(()));
            }
        })
    }

    fn spawn(
        threads: &Tasks,
        name: &'static str,
        serve: impl FnOnce(Receiver<Work>) + Send + 'static,
    ) -> io::Result<Self> {
        let (desk, queue) = sync_channel(QUEUE);
        threads.thread(name, move || serve(queue))?;
        Ok(Self(desk))
    }

    /// Hands work in and waits for its answer; `operation` names it in the metrics.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let result = connection.and_then(|connection| in_savepoint(connection, work));
            Box::new(move |committed| {
                // A caller that went away needs no answer.
                sender.send(committed.and(result)).ok();
            })
        });
        let answer = match self.0.try_send(work) {
            Ok(()) => timeout(LIMIT, answer).await.map_or_else(|_| Err(late()), |answer| answer.unwrap_or(Err(gone()))),
            Err(TrySendError::Full(_)) => Err(StoreError::Unavailable("too many writes waiting".to_owned())),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        };
        if let Err(error) = &answer {
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "sqlite", "operation" => operation).increment(1);
            tracing::debug!(operation, %error, "sqlite");
        }
        answer
    }
}

fn late() -> StoreError {
    StoreError::Unavailable(format!("no answer within {LIMIT:?}"))
}

fn gone() -> StoreError {
    StoreError::Unavailable("the database's thread has ended".to_owned())
}

/// Passive: waits for nobody, and what it does not reach comes with the next.
fn checkpoint(connection: &Connection, commits: &Receiver<()>) {
    while commits.recv().is_ok() {
        failpoint::reach("sqlite-checkpoint");
        if let Err(error) = connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(())) {
            tracing::warn!(%error, "sqlite: the log was not folded into the file");
        }
        thread::sleep(CHECKPOINT);
    }
}

fn serve_writes(connection: &Connection, queue: &Receiver<Work>, checkpoint: &SyncSender<()>) {
    while let Ok(first) = queue.recv() {
        failpoint::reach("sqlite-writer");
        let begun = connection.execute_batch("begin immediate").map_err(failed);
        let mut replies = Vec::new();
        let mut next = Some(first);
        while let Some(work) = next {
            replies.push(work(begun.as_ref().map(|()| connection).map_err(Clone::clone)));
            next = if replies.len() < MOST { queue.try_recv().ok() } else { None };
        }
        let committed = begun.and_then(|()| connection.execute_batch("commit").map_err(failed));
        if committed.is_err() && !connection.is_autocommit() {
            // Without effect where SQLite has rolled back by itself.
            connection.execute_batch("rollback").ok();
        }
        for reply in replies {
            reply(committed.clone());
        }
        // Full: it has not begun with the commit before this one.
        checkpoint.try_send(()).ok();
    }
}

/// Undoes what it did where it fails.
pub(super) fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if connection.is_autocommit() {
        return work(connection);
    }
    connection.prepare_cached("savepoint work").and_then(|mut begin| begin.execute([])).map_err(failed)?;
    let answer = work(connection);
    if answer.is_err() {
        connection.execute_batch("rollback to work").map_err(failed)?;
    }
    connection.prepare_cached("release work").and_then(|mut end| end.execute([])).map_err(failed)?;
    answer
}

/// Data that the tables do not take is refused; everything else (a full disk, another writer) may pass.
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    let mend = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "; free space on the disk of the database's file",
        Some(ErrorCode::ReadOnly) => "; make the database's file and its folder writable",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another program holds it: end that one",
        _ => "",
    };
    let text = format!("{error}{mend}");
    let passing = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::OperationInterrupted
        )
    );
    if passing { StoreError::Unavailable(text) } else { StoreError::Refused(text) }
}
