//! A connection for work that must not be late. Unlike a connection of the pool, it never waits for the statements of
//! others.
//!
//! A statement that was given up may still be carried out, and may be repeated, so each statement compares the epoch.
use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_postgres::Row;

use super::{
    NAME,
    connect::{Connector, Dedicated},
    rows::Parameters,
    statement_error::{Failure, PAUSE},
};
use crate::StoreError;
use rollcall_base::names;

/// A connection for one kind of work, which is made when it is first used.
pub(super) struct Keeper {
    connector: Arc<Connector>,
    /// The settings of its session.
    settings: &'static str,
    /// How long a call may take, including a new connection if there is none.
    limit: Duration,
    connection: Mutex<Option<Dedicated>>,
}

impl Keeper {
    /// Prepares the connection, which is made when it is first used.
    pub(super) fn new(connector: Arc<Connector>, settings: &'static str, limit: Duration) -> Self {
        Self { connector, settings, limit, connection: Mutex::default() }
    }

    /// Runs one statement in a transaction of its own. `operation` is its name in the metrics.
    pub(super) async fn rows(
        &self,
        operation: &'static str,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let answer = timeout(self.limit, self.attempts(sql, parameters)).await;
        let limit = self.limit;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {limit:?}"))));
        if let Err(error) = &answer {
            metrics::counter!(names::BACKEND_ERRORS, "backend" => NAME, "operation" => operation).increment(1);
            tracing::debug!(operation, %error, "postgres");
        }
        answer
    }

    /// Runs attempts until one is answered. The connection is put back only after an answer; if the call is dropped
    /// before, the connection is closed.
    async fn attempts(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let mut held = self.connection.lock().await;
        let mut conflicts = 0;
        loop {
            let connection = match held.take().filter(|connection| !connection.is_closed()) {
                Some(connection) => connection,
                None => Dedicated::connect(&self.connector, self.settings, Duration::ZERO).await?,
            };
            match connection.query(sql, parameters).await {
                Ok(rows) => {
                    *held = Some(connection);
                    return Ok(rows);
                }
                Err(Failure::Answered(error)) => {
                    *held = Some(connection);
                    return Err(error);
                }
                Err(Failure::Again(_)) => {
                    *held = Some(connection);
                    conflicts += 1;
                    sleep(PAUSE * conflicts).await;
                }
                // The next connection may lead to the server that takes writes.
                Err(Failure::ReadOnly(_)) => {}
                Err(Failure::Broken(error)) => return Err(error),
            }
        }
    }
}
