//! Calls a Redis server: sends commands in one round trip, within a deadline, on a connection of the pool.
//!
//! Invariant: a connection that failed, that got no answer, or that leads to a server that does not work is never used
//! again.
use std::{sync::Arc, time::Duration};

use bb8_redis::{
    bb8::{Pool, QueueStrategy, RunError},
    redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::{
    KeysError,
    address::Endpoint,
    clock::Clock,
    connection::{ConnectionManager, RedisConnection},
    dial::{ConnectError, Dialer},
    scripts::Scripts,
    state,
};
use rollcall_base::names;

/// How long a call may take. So a client learns within two seconds that its join failed, after the join was undone in
/// SQL.
pub(super) const ANSWER: Duration = Duration::from_millis(1200);
/// How much of [`ANSWER`] a call may wait for a connection.
const CONNECT: Duration = Duration::from_millis(900);
/// How long one attempt to connect may take. It is shorter than the wait for a connection, so its error is known by
/// then.
const TRY: Duration = Duration::from_millis(850);
/// The number of connections. All callers share one, whose commands are sent in few writes. The others take over while
/// it is being replaced.
const CONNECTIONS: u32 = 3;

/// The calls of one server.
pub(super) struct Calls {
    pool: Pool<ConnectionManager>,
    /// Why the last connection could not be made.
    failure: Arc<Mutex<Option<ConnectError>>>,
}

impl Calls {
    /// Creates a caller of `node`, a node of a cluster, or of the URL's own server if there is none. Connections are
    /// made when they are needed.
    pub(super) fn new(dialer: Arc<Dialer>, node: Option<Endpoint>, clock: Arc<Clock>) -> Self {
        let manager = ConnectionManager::new(dialer, node, TRY, clock);
        let failure = manager.failure();
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(CONNECT)
            .queue_strategy(QueueStrategy::Lifo)
            .idle_timeout(None)
            .max_lifetime(None)
            .build_unchecked(manager);
        Self { pool, failure }
    }

    /// Runs the commands in one round trip, within [`ANSWER`].
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        commands: impl Fn(&Scripts, Instant) -> Pipeline,
    ) -> Result<T, KeysError> {
        self.run_until(Instant::now() + ANSWER, operation, commands).await
    }

    /// Runs the commands in one round trip.
    pub(super) async fn run_until<T: FromRedisValue>(
        &self,
        deadline: Instant,
        operation: &'static str,
        commands: impl Fn(&Scripts, Instant) -> Pipeline,
    ) -> Result<T, KeysError> {
        let run = |connection: RedisConnection| {
            let commands = commands(connection.scripts(), deadline);
            async move { connection.run(&commands).await }
        };
        self.twice(deadline, run).await.map_err(|failure| failed(operation, failure))
    }

    /// Runs the commands in one round trip, and returns the answer to each.
    pub(super) async fn run_each(
        &self,
        deadline: Instant,
        commands: impl Fn(&Scripts) -> Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, Failure> {
        let run = |connection: RedisConnection| {
            let commands = commands(connection.scripts());
            async move { connection.run_each(commands).await }
        };
        self.twice(deadline, run).await
    }

    /// Runs an attempt, and a second attempt if the first finds that its connection is closed, as after a restart of
    /// the server.
    async fn twice<T, F: Future<Output = Result<T, RedisError>>>(
        &self,
        deadline: Instant,
        run: impl Fn(RedisConnection) -> F,
    ) -> Result<T, Failure> {
        match self.attempt(&run, deadline).await {
            Err(Failure::Closed(_)) => self.attempt(&run, deadline).await,
            outcome => outcome,
        }
    }

    async fn attempt<T, F: Future<Output = Result<T, RedisError>>>(
        &self,
        run: impl Fn(RedisConnection) -> F,
        deadline: Instant,
    ) -> Result<T, Failure> {
        let connection = match timeout_at(deadline, self.pool.get()).await {
            // The pool's connection is cloned and given back, because it carries the commands of many callers at once.
            Ok(Ok(connection)) => connection.clone(),
            Ok(Err(RunError::User(error))) => return Err(Failure::NoConnection(error)),
            Ok(Err(RunError::TimedOut)) | Err(_) => return Err(self.no_connection()),
        };
        match timeout_at(deadline, run(connection.clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if connection.is_broken() => Err(Failure::Closed(error)),
            Ok(Err(error)) => Err(Failure::Refused(error)),
            Err(_) => {
                connection.abandon();
                Err(Failure::Silent)
            }
        }
    }

    fn no_connection(&self) -> Failure {
        let failure = self.failure.lock();
        Failure::NoConnection(failure.clone().unwrap_or_else(|| ConnectError("it did not answer in time".into())))
    }
}

/// Counts a failure, and makes the error for callers of the keys.
pub(super) fn failed(operation: &'static str, failure: impl ToString) -> KeysError {
    metrics::counter!(names::BACKEND_ERRORS, "backend" => "redis", "operation" => operation).increment(1);
    KeysError(failure.to_string())
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No connection could be made, so nothing was sent.
    #[error("no connection to Redis: {0}")]
    NoConnection(ConnectError),
    #[error("Redis did not answer in time")]
    Silent,
    #[error("the connection to Redis was given up: {}", state::describe(.0))]
    Closed(RedisError),
    #[error("Redis refused: {}", state::describe(.0))]
    Refused(RedisError),
}
