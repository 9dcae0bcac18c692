//! Statements on pooled connections, each within the store's limit of time.
//!
//! Invariant: a connection goes back to the pool only after its statement was answered. A server may still carry out a
//! statement that was given up, even hours later if the server was stopped. So the backend of such a statement is
//! remembered as lost, and the next statement first ends the lost backends and waits until they are gone. Therefore a
//! statement after a write of unknown outcome sees its final state: the write is committed, or it never will be. Behind
//! a pooler, where clients share backends, this is true by other means ([`super::pooled`]).
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, QueueMode, RecycleError, RecycleResult},
};
use deadpool_postgres::ClientWrapper;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    LIMIT, NAME,
    connect::Connector,
    connect_error::ConnectError,
    dial::Connected,
    growth::{FIRST, Growth, Permit},
    pooled::Pooled,
    rows::{Parameters, get},
    statement_error::{Failure, PAUSE, text},
};
use crate::StoreError;
use rollcall_base::names;

/// The first and the longest pause between two checks whether a lost backend is gone, for a server that has no time to
/// end it.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));

/// A backend process of the server. The start time distinguishes it from a later process with the same pid.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    pid: i32,
    started: String,
}

struct ServerProcess {
    client: ClientWrapper,
    /// The backend's identity. `None` behind a pooler.
    identity: Option<Identity>,
    /// The incarnation of the backend's database.
    incarnation: Option<Uuid>,
}

/// How long an unused connection beyond the first few is kept.
const IDLE: Duration = Duration::from_secs(60);

/// Makes backends, each with its identity and the incarnation of its database.
struct ConnectionManager {
    connector: Arc<Connector>,
    growth: Growth,
}

impl managed::Manager for ConnectionManager {
    type Type = ServerProcess;
    type Error = StoreError;

    /// Connects. The connector limits the time, and so does a caller that waits.
    async fn create(&self) -> Result<ServerProcess, StoreError> {
        // The query does not use pg_stat_activity, because the server plans and reads that view as a join of all
        // connections.
        const WHO: &str = "select pid, backend_start::text from pg_stat_get_activity(pg_backend_pid())";
        let Connected { client, connection, .. } =
            self.connector.connect("", Duration::ZERO).await.map_err(ConnectError::unavailable)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = text(&error), "postgres: a connection ended");
            }
        });
        let client = ClientWrapper::new(client, driver);
        let away = |error| StoreError::Unavailable(text(&error));
        let identity = match &self.connector.pooled {
            Some(pooled) => {
                pooled.learn(&client).await.map_err(away)?;
                None
            }
            None => {
                let row = client.query_typed_one(WHO, &[]).await.map_err(away)?;
                Some(Identity { pid: get(&row, 0)?, started: get(&row, 1)? })
            }
        };
        let incarnation = self.connector.compare(&client).await.map_err(|error| match error {
            // The connection fails here, and not the statement that waits for it.
            StoreError::Refused(why) => StoreError::Unavailable(why),
            error => error,
        })?;
        Ok(ServerProcess { client, identity, incarnation })
    }

    async fn recycle(&self, backend: &mut ServerProcess, _: &Metrics) -> RecycleResult<StoreError> {
        let why = match self.connector.timeline.is_current(backend.incarnation) {
            _ if backend.client.is_closed() => "the connection is closed",
            true => return Ok(()),
            false => "the database has another history by now",
        };
        self.growth.lost(1);
        Err(RecycleError::message(why))
    }
}

type Lost = Mutex<Vec<Identity>>;

/// A backend in use. If it is dropped before its statement was answered, it is lost.
struct Busy {
    backend: Option<managed::Object<ConnectionManager>>,
    lost: Arc<Lost>,
    /// Behind a pooler: the time by which the statement's transaction must have begun. The time is set before the
    /// transaction may be sent.
    deadline: OnceLock<(Arc<Pooled>, f64)>,
    permit: Permit,
}

impl Busy {
    fn answered(mut self) {
        self.permit.answered();
        self.backend = None;
    }

    /// Closes a backend that has answered, but cannot be used any more.
    fn discard(mut self) {
        self.backend.take().map(managed::Object::take);
        self.permit.lost();
    }

    fn get(&self) -> &ServerProcess {
        self.backend.as_ref().expect("only answered() and drop() take it, and both end the value")
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take() {
            let backend = managed::Object::take(backend);
            if let Some((pooled, deadline)) = self.deadline.get() {
                pooled.lose(*deadline);
            }
            self.lost.lock().extend(backend.identity.clone());
            self.permit.lost();
        }
    }
}

#[derive(Clone)]
pub(super) struct Pool {
    backends: managed::Pool<ConnectionManager>,
    growth: Growth,
    lost: Arc<Lost>,
    connector: Arc<Connector>,
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, size: usize) -> Self {
        let growth = Growth::new(size);
        let manager = ConnectionManager { connector: Arc::clone(&connector), growth: growth.clone() };
        let backends = managed::Pool::builder(manager)
            .max_size(size)
            // Connections that are not needed stay unused, and are closed.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(LIMIT))
            .build()
            .expect("a pool with a runtime may have timeouts");
        Self { backends, growth, lost: Arc::default(), connector }
    }

    /// Runs one statement in a transaction of its own. `operation` is its name in the metrics.
    pub(super) async fn rows(
        &self,
        operation: &'static str,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let answer = timeout(LIMIT, self.attempts(sql, parameters)).await.unwrap_or_else(|_| {
            self.forget_silent();
            Err(StoreError::Unavailable(format!("no answer within {LIMIT:?}")))
        });
        if let Err(error) = &answer {
            metrics::counter!(names::BACKEND_ERRORS, "backend" => NAME, "operation" => operation).increment(1);
            tracing::debug!(operation, %error, "postgres");
        }
        answer
    }

    async fn attempts(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let mut conflicts = 0;
        loop {
            let busy = self.take().await?;
            let answer = self.run(&busy, sql, parameters).await;
            match answer {
                Ok(rows) => {
                    busy.answered();
                    return Ok(rows);
                }
                Err(Failure::Answered(error)) => {
                    busy.answered();
                    return Err(error);
                }
                Err(Failure::Broken(error)) => return Err(error),
                Err(Failure::ReadOnly(error)) => {
                    tracing::debug!(%error, "the server is read-only, so the server that accepts writes is looked for");
                    busy.discard();
                    self.retain(|_| false);
                }
                Err(Failure::Again(error)) => {
                    busy.answered();
                    conflicts += 1;
                    tracing::debug!(conflicts, %error, "a statement is tried again");
                    sleep(PAUSE * conflicts).await;
                }
            }
        }
    }

    /// Closes idle connections after a call without an answer: the server may be gone without closing them, and each
    /// would cost one more call its time. Connections that have answered meanwhile stay.
    fn forget_silent(&self) {
        self.retain(|metrics| metrics.last_used() < LIMIT);
    }

    /// Closes connections that are not in use, except those for which `stays` is true.
    fn retain(&self, mut stays: impl FnMut(Metrics) -> bool) {
        let closed = self.backends.retain(|_, metrics| stays(metrics)).removed.len();
        self.growth.lost(closed);
    }

    async fn take(&self) -> Result<Busy, StoreError> {
        let start = Instant::now();
        let permit = self.growth.permit().await;
        let backend = self.backends.get().await.map_err(|error| match error {
            managed::PoolError::Backend(error) => error,
            error => StoreError::Unavailable(error.to_string()),
        })?;
        metrics::histogram!(names::POOL_WAIT, "pool" => NAME).record(start.elapsed());
        Ok(Busy { backend: Some(backend), lost: self.lost.clone(), deadline: OnceLock::new(), permit })
    }

    async fn run(&self, busy: &Busy, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, Failure> {
        let backend = busy.get();
        if let Some(pooled) = &self.connector.pooled {
            pooled.await_lost(&backend.client).await?;
            let deadline = pooled.deadline(&backend.client).await?;
            let _ = busy.deadline.set((Arc::clone(pooled), deadline));
            let timeline = &self.connector.timeline;
            return pooled.query(&backend.client, timeline, &[], Some(deadline), sql, parameters).await;
        }
        self.settle(backend).await?;
        let statement = backend.client.prepare_cached(sql).await?;
        Ok(backend.client.query(&statement, parameters).await?)
    }

    /// Returns when no lost backend is left.
    async fn settle(&self, backend: &ServerProcess) -> Result<(), Failure> {
        const END: &str = "select count(pg_terminate_backend(a.pid)) \
            from unnest($1::int[], $2::text[]) as l(pid, started) \
            cross join lateral pg_stat_get_activity(l.pid) as a where a.backend_start::text = l.started";
        let mut pause = LOOK.0;
        loop {
            let (pids, starts): (Vec<i32>, Vec<String>) =
                self.lost.lock().iter().map(|identity| (identity.pid, identity.started.clone())).unzip();
            if pids.is_empty() {
                return Ok(());
            }
            let statement = backend.client.prepare_cached(END).await?;
            let left: i64 = backend.client.query_one(&statement, &[&pids, &starts]).await?.try_get(0)?;
            if left == 0 {
                self.lost.lock().retain(|identity| !pids.contains(&identity.pid));
            } else {
                sleep(pause).await;
                pause = (2 * pause).min(LOOK.1);
            }
        }
    }

    /// Closes connections that were not used for [`IDLE`], and writes the pool's gauges.
    pub(super) fn tidy(&self) {
        let mut left = self.backends.status().size;
        self.retain(|metrics| {
            let stays = left <= FIRST || metrics.last_used() < IDLE;
            left -= usize::from(!stays);
            stays
        });
        let status = self.backends.status();
        for (state, count) in [("idle", status.available), ("busy", status.size - status.available)] {
            metrics::gauge!(names::POOL_CONNECTIONS, "pool" => NAME, "state" => state).set(count as f64);
        }
        let waiting = self.growth.waiting() as f64;
        metrics::gauge!(names::POOL_CONNECTIONS, "pool" => NAME, "state" => "waiting").set(waiting);
    }
}
