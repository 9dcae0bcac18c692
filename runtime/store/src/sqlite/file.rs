//! The database's file: how it is opened and brought up to date.
use std::{path::Path, time::Duration};

use rollcall_schema::sql::{Migration, SQLITE};
use rusqlite::{Connection, Row, TransactionBehavior, config::DbConfig};

use super::db_thread::failed;
use crate::{
    StoreError,
    schema::{STATE, State, migration_table, names},
};

/// Another process may be writing: a load, or a person with the sqlite3 tool.
const BUSY: Duration = Duration::from_secs(1);
/// All statements of the store stay prepared.
const STATEMENTS: usize = 64;
/// The writer folds the log into the file by itself only where the checkpointer cannot keep up (64 MiB).
const PRAGMAS: &str = "pragma journal_mode = wal; pragma synchronous = normal; pragma wal_autocheckpoint = 16384; \
    pragma temp_store = memory; pragma cache_size = -1024; \
    pragma cache_spill = off; pragma foreign_keys = on;";

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)
        .map_err(|error| StoreError::Refused(format!("cannot open {}: {error}", path.display())))?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on the values bound, so that no statement is prepared anew for each row.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    connection.execute_batch(PRAGMAS).map_err(failed)?;
    Ok(connection)
}

pub(super) fn migrate(path: &Path) -> Result<(), StoreError> {
    let mut connection = open(path)?;
    if state(&connection)?.missing(SQLITE)?.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction
        .execute_batch(migration_table!("text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now'))"))
        .map_err(failed)?;
    // Another process may have done it meanwhile.
    for Migration { version, name, sql, compatible_from } in state(&transaction)?.missing(SQLITE)? {
        transaction.execute_batch(sql).map_err(failed)?;
        let applied = "insert into migration (version, name, compatible_from) values (?1, ?2, ?3)";
        transaction.execute(applied, (version, name, compatible_from)).map_err(failed)?;
        tracing::info!(name, "sqlite: migrated");
    }
    transaction.commit().map_err(failed)
}

/// The names of the migrations that are missing.
pub(super) fn missing(connection: &Connection) -> Result<Vec<&'static str>, StoreError> {
    Ok(names(state(connection)?.missing(SQLITE)?))
}

fn state(connection: &Connection) -> Result<State, StoreError> {
    const MADE: &str = "select exists (select 1 from sqlite_schema where name = 'migration')";
    if !connection.query_row(MADE, [], |row| row.get(0)).map_err(failed)? {
        return Ok(State::default());
    }
    let state = |row: &Row<'_>| Ok(State { version: row.get(0)?, compatible_from: row.get(1)? });
    connection.query_row(STATE, [], state).map_err(failed)
}
