//! A connection of its own for what must be timely: it waits for nobody else's statements, as one of the pool would.
//!
//! What runs on it may be repeated: a statement that was given up may still be carried out, so each compares the epoch.
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

/// See the module.
pub(super) struct Keeper {
    connector: Arc<Connector>,
    /// Settings of its session.
    settings: &'static str,
    /// How long a call may take, including a new connection if there is none.
    limit: Duration,
    connection: Mutex<Option<Dedicated>>,
}

impl Keeper {
    /// Connects when it is first used.
    pub(super) fn new(connector: Arc<Connector>, settings: &'static str, limit: Duration) -> Self {
        Self { connector, settings, limit, connection: Mutex::default() }
    }

    /// Runs one statement in a transaction of its own; `operation` names it in the metrics.
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

    /// The connection is put back after an answer only: dropped meanwhile, it is closed.
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
                // The next connection may find the server that takes writes.
                Err(Failure::ReadOnly(_)) => {}
                Err(Failure::Broken(error)) => return Err(error),
            }
        }
    }
}
