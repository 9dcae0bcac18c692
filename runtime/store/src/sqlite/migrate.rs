//! Brings the tables up to date, in one transaction.
use std::path::Path;

use async_trait::async_trait;
use rollcall_schema::sql::{Migration, SQLITE};
use rusqlite::{Connection, Row, TransactionBehavior};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{db_thread::failed, file, rows::unreadable, store::SqliteStore};
use crate::{
    Schema, StoreError,
    migrations::{STATE, State, migration_table, names},
};

#[async_trait]
impl Schema for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let migrated = spawn_blocking(move || migrate(&path)).await;
        migrated.unwrap_or_else(|_| Err(StoreError::Unavailable("the migration panicked".to_owned())))
    }

    async fn missing_migrations(&self) -> Result<Vec<&'static str>, StoreError> {
        self.reader.call("missing", |connection| Ok(names(state(connection)?.missing(SQLITE)?))).await
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.reader.call("installation", installation).await
    }

    async fn signing_key(&self) -> Result<Vec<u8>, StoreError> {
        let key = |connection: &Connection| {
            connection.query_row("select signing_key from installation", [], |row| row.get(0)).map_err(failed)
        };
        self.reader.call("installation", key).await
    }
}

fn installation(connection: &Connection) -> Result<Uuid, StoreError> {
    let id: String = connection.query_row("select id from installation", [], |row| row.get(0)).map_err(failed)?;
    Uuid::parse_str(&id).map_err(unreadable)
}

fn migrate(path: &Path) -> Result<(), StoreError> {
    let mut connection = file::open(path)?;
    if state(&connection)?.missing(SQLITE)?.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction
        .execute_batch(migration_table!("text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now'))"))
        .map_err(failed)?;
    // Another process may have migrated the tables meanwhile.
    for Migration { version, name, sql, compatible_from } in state(&transaction)?.missing(SQLITE)? {
        transaction.execute_batch(sql).map_err(failed)?;
        let applied = "insert into migration (version, name, compatible_from) values (?1, ?2, ?3)";
        transaction.execute(applied, (version, name, compatible_from)).map_err(failed)?;
        tracing::info!(name, "sqlite: migrated");
    }
    transaction.commit().map_err(failed)
}

fn state(connection: &Connection) -> Result<State, StoreError> {
    const MADE: &str = "select exists (select 1 from sqlite_schema where name = 'migration')";
    if !connection.query_row(MADE, [], |row| row.get(0)).map_err(failed)? {
        return Ok(State::default());
    }
    let state = |row: &Row<'_>| Ok(State { version: row.get(0)?, compatible_from: row.get(1)? });
    connection.query_row(STATE, [], state).map_err(failed)
}
