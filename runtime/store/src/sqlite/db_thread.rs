//! A thread that owns a connection, because SQLite blocks, and allows only one writer at a time.
//!
//! The writer is a group commit: all waiting calls run in one transaction, each in a savepoint of its own, so that one
//! that fails does not affect others. All are answered after the commit. Calls run in the order of their arrival, even
//! if their callers gave up, so a call after a write of unknown outcome sees how that write ended.
//!
//! Invariant: no part of a batch is written outside of its transaction. Some errors (a full or failing disk, no memory)
//! end the transaction and undo all of it. Then every call of the batch fails, and no further call joins it.
use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode};
use tokio::{sync::oneshot, time::timeout};

use crate::StoreError;
use rollcall_base::{failpoint, names, tasks::Tasks};

/// How long a call may take, including its wait in the queue.
const LIMIT: Duration = Duration::from_millis(1500);
/// The maximum number of calls that wait. Each is a batch.
const QUEUE: usize = 1024;
/// The maximum number of calls in one transaction.
const MAX_BATCH: usize = 64;
/// The time between two checkpoints.
const CHECKPOINT: Duration = Duration::from_millis(250);

/// A function that is called with the outcome of the transaction.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A function that is called with the connection, or with the reason why there is no transaction.
type Work = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Reply + Send>;

/// The handle of the thread. The thread ends with the last clone.
#[derive(Clone)]
pub(super) struct DbThread {
    queue: SyncSender<Work>,
    writes: bool,
}

impl DbThread {
    /// Starts a thread that runs its work in transactions. Meanwhile `checkpointer` writes the log into the file,
    /// because the syncs for that would delay every write.
    pub(super) fn writer(threads: &Tasks, connection: Connection, checkpointer: Connection) -> io::Result<Self> {
        let (committed, commits) = sync_channel(1);
        threads.dependent_thread("sqlite-checkpoint", move || checkpoint(&checkpointer, &commits))?;
        Self::spawn(threads, "sqlite-writer", true, move |queue| serve_writes(&connection, &queue, &committed))
    }

    /// Starts a thread whose work only reads what is committed when it runs.
    pub(super) fn reader(threads: &Tasks, connection: Connection) -> io::Result<Self> {
        Self::spawn(threads, "sqlite-reader", false, move |queue| {
            for work in queue {
                failpoint::reach("sqlite-reader");
                work(Ok(&connection))(Ok(()));
            }
        })
    }

    fn spawn(
        threads: &Tasks,
        name: &'static str,
        writes: bool,
        serve: impl FnOnce(Receiver<Work>) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, works) = sync_channel(QUEUE);
        threads.thread(name, move || serve(works))?;
        Ok(Self { queue, writes })
    }

    /// Queues work and waits for its answer. `operation` is its name in the metrics.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let writes = self.writes;
        let work: Work = Box::new(move |connection| {
            let result = connection
                .and_then(|connection| if writes { in_savepoint(connection, work) } else { work(connection) });
            Box::new(move |committed| {
                // A caller that is gone needs no answer.
                sender.send(committed.and(result)).ok();
            })
        });
        let answer = match self.queue.try_send(work) {
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

/// Makes passive checkpoints: they do not wait for other connections, and the next one takes what this one could not.
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
        let mut undone = false;
        while let Some(work) = next {
            replies.push(work(begun.as_ref().map(|()| connection).map_err(Clone::clone)));
            undone = begun.is_ok() && connection.is_autocommit();
            next = if replies.len() < MAX_BATCH && !undone { queue.try_recv().ok() } else { None };
        }
        let committed = match begun {
            Ok(()) if undone => Err(rolled_back()),
            Ok(()) => connection.execute_batch("commit").map_err(failed),
            Err(error) => Err(error),
        };
        if committed.is_err() && !connection.is_autocommit() {
            // The statement has no effect if SQLite has rolled back by itself.
            connection.execute_batch("rollback").ok();
        }
        for reply in replies {
            reply(committed.clone());
        }
        // If the channel is full, the checkpointer has not begun with an earlier commit yet, and will include this one.
        checkpoint.try_send(()).ok();
    }
}

fn rolled_back() -> StoreError {
    StoreError::Unavailable("an error ended the transaction, and all of it was undone".to_owned())
}

/// Runs a function in a savepoint, and undoes its writes if it fails. A transaction must be open, because without one
/// each statement would commit by itself.
pub(super) fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if connection.is_autocommit() {
        return Err(rolled_back());
    }
    connection.prepare_cached("savepoint work").and_then(|mut begin| begin.execute([])).map_err(failed)?;
    let answer = work(connection);
    if connection.is_autocommit() {
        return answer.and_then(|_| Err(rolled_back()));
    }
    if answer.is_err() {
        connection.execute_batch("rollback to work").map_err(failed)?;
    }
    connection.prepare_cached("release work").and_then(|mut end| end.execute([])).map_err(failed)?;
    answer
}

/// Converts an error. Data that the tables do not accept is refused. Every other error (a full disk, another writer)
/// may be temporary.
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "; free space on the disk of the database's file",
        Some(ErrorCode::ReadOnly) => "; make the database's file and its folder writable",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another program holds it: end that one",
        _ => "",
    };
    let text = format!("{error}{hint}");
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A database with little room, and a writer whose first work waits for the test.
    struct Bench {
        thread: DbThread,
        go: std::sync::mpsc::Sender<()>,
        file: tempfile::NamedTempFile,
    }

    impl Bench {
        fn new() -> Self {
            let file = tempfile::NamedTempFile::new().expect("a file");
            let open = || Connection::open(file.path()).expect("opened");
            let connection = open();
            connection.execute_batch("pragma journal_mode = wal; create table kept (what)").expect("made");
            let pages: i64 = connection.query_row("pragma page_count", [], |row| row.get(0)).expect("counted");
            connection.execute_batch(&format!("pragma max_page_count = {}", pages + 1)).expect("limited");
            let thread = DbThread::writer(&Tasks::default(), connection, open()).expect("a thread");
            let (go, wait) = channel::<()>();
            thread
                .queue
                .try_send(Box::new(move |_| {
                    wait.recv().ok();
                    Box::new(|_| {})
                }))
                .expect("room");
            Self { thread, go, file }
        }

        fn kept(&self) -> i64 {
            let connection = Connection::open(self.file.path()).expect("opened");
            connection.query_row("select count(*) from kept", [], |row| row.get(0)).expect("counted")
        }
    }

    fn insert(connection: &Connection, size: i64) -> Result<(), StoreError> {
        connection.execute("insert into kept values (zeroblob(?1))", [size]).map(drop).map_err(failed)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_inside_a_batch_fails_all_of_it_and_nothing_else() {
        let bench = Bench::new();
        // All three wait behind the first work, so they are in its batch.
        let small = |connection: &Connection| insert(connection, 1);
        let calls = async {
            tokio::join!(
                bench.thread.call("one", small),
                bench.thread.call("large", |connection| insert(connection, 100_000)),
                bench.thread.call("two", small),
            )
        };
        let go = async {
            bench.go.send(()).expect("waits");
        };
        let ((one, large, two), ()) = tokio::join!(calls, go);
        assert!(matches!(one, Err(StoreError::Unavailable(_))), "{one:?}");
        assert!(matches!(large, Err(StoreError::Unavailable(_))), "{large:?}");
        // This call came after the error, so it is in a transaction of its own.
        assert!(two.is_ok(), "{two:?}");
        assert_eq!(bench.kept(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_that_goes_on_after_such_an_error_writes_nothing() {
        let bench = Bench::new();
        bench.go.send(()).expect("waits");
        let answer = bench.thread.call("stubborn", |connection| {
            let failed = in_savepoint(connection, |connection| insert(connection, 100_000));
            assert!(failed.is_err());
            in_savepoint(connection, |connection| insert(connection, 1)).ok();
            Ok(())
        });
        assert!(matches!(answer.await, Err(StoreError::Unavailable(_))));
        assert_eq!(bench.kept(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_refused_fails_alone() {
        let bench = Bench::new();
        let refused = bench.thread.call("refused", |connection| {
            insert(connection, 1)?;
            connection.execute("insert into missing values (1)", []).map(drop).map_err(failed)
        });
        let kept = bench.thread.call("kept", |connection| insert(connection, 1));
        let go = async { bench.go.send(()).expect("waits") };
        let (refused, kept, ()) = tokio::join!(refused, kept, go);
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        assert!(kept.is_ok());
        assert_eq!(bench.kept(), 1);
    }
}
