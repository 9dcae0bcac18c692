//! Calls of a Redis server: commands in one round trip, within a deadline, on a connection of the pool.
//!
//! Invariant: a connection that failed, fell silent, or leads to a server that does not work is never used again.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bb8_redis::{
    bb8::{Pool, QueueStrategy, RunError},
    redis::{FromRedisValue, Pipeline, RedisError},
};
use tokio::time::{Instant, timeout_at};

use super::{
    KeysError,
    connection::{Clock, ConnectionManager, Scripts, describe},
};
use rollcall_base::{BackendUrl, names};

/// How long a call takes at most: a client is describe within two seconds that its join failed, after it was undone in SQL.
pub(super) const ANSWER: Duration = Duration::from_millis(1200);
/// How much of that may go into getting a connection.
const CONNECT: Duration = Duration::from_millis(900);
/// Connections. All callers share one (its commands go out in few writes); the others take over while it is being replaced.
const CONNECTIONS: u32 = 3;

/// Calls of one server.
pub(super) struct Calls {
    pool: Pool<ConnectionManager>,
    /// Why there is no connection.
    failure: Arc<Mutex<Option<String>>>,
}

impl Calls {
    /// Connections are made when they are needed; the address is read again for each.
    pub(super) fn new(url: BackendUrl, clock: Arc<Clock>) -> Result<Self, RedisError> {
        let manager = ConnectionManager::new(url, CONNECT, clock)?;
        let failure = manager.failure();
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(CONNECT)
            .queue_strategy(QueueStrategy::Lifo)
            .idle_timeout(None)
            .max_lifetime(None)
            .build_unchecked(manager);
        Ok(Self { pool, failure })
    }

    /// Runs the commands in one round trip, within [`ANSWER`].
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        operation: &'static str,
        commands: impl Fn(&Scripts, Instant) -> Pipeline,
    ) -> Result<T, KeysError> {
        self.run_until(Instant::now() + ANSWER, operation, commands).await
    }

    /// Runs the commands in one round trip. A connection that turns out to be closed is replaced, once: that is how the
    /// first call after a restart of the server finds it.
    pub(super) async fn run_until<T: FromRedisValue>(
        &self,
        deadline: Instant,
        operation: &'static str,
        commands: impl Fn(&Scripts, Instant) -> Pipeline,
    ) -> Result<T, KeysError> {
        let mut outcome = self.attempt(&commands, deadline).await;
        if let Err(Failure::Closed(_)) = outcome {
            outcome = self.attempt(&commands, deadline).await;
        }
        outcome.map_err(|failure| {
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "redis", "operation" => operation).increment(1);
            KeysError(failure.to_string())
        })
    }

    async fn attempt<T: FromRedisValue>(
        &self,
        commands: impl Fn(&Scripts, Instant) -> Pipeline,
        deadline: Instant,
    ) -> Result<T, Failure> {
        let connection = match timeout_at(deadline, self.pool.get()).await {
            // The pool's part ends here: the connection carries many callers' commands at once.
            Ok(Ok(connection)) => connection.clone(),
            Ok(Err(RunError::User(error))) => return Err(Failure::Refused(error)),
            Ok(Err(RunError::TimedOut)) | Err(_) => return Err(self.no_connection()),
        };
        match timeout_at(deadline, connection.run(&commands(connection.scripts(), deadline))).await {
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
        // An option is whole after any panic.
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        Failure::NoConnection(failure.clone().unwrap_or_else(|| "it did not answer in time".to_owned()))
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no connection to Redis: {0}")]
    NoConnection(String),
    #[error("Redis did not answer in time")]
    Silent,
    #[error("the connection to Redis was given up: {}", describe(.0))]
    Closed(RedisError),
    #[error("Redis refused: {}", describe(.0))]
    Refused(RedisError),
}
