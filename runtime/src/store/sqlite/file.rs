//! The database's file: how it is opened and brought up to date.
use std::{path::Path, time::Duration};

use rollcall_schema::sql::{Migration, SQLITE};
use rusqlite::{Connection, TransactionBehavior, config::DbConfig};

use super::desk::failed;
use crate::store::{StoreError, missing};

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
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction
        .execute_batch(
            "create table if not exists migration (version integer primary key, name text not null, \
             applied_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')))",
        )
        .map_err(failed)?;
    let found = transaction
        .query_row("select coalesce(max(version), 0) from migration", [], |row| row.get(0))
        .map_err(failed)?;
    for Migration { version, name, sql } in missing(SQLITE, found)? {
        transaction.execute_batch(sql).map_err(failed)?;
        transaction
            .execute("insert into migration (version, name) values (?1, ?2)", (version, name))
            .map_err(failed)?;
        tracing::info!(name, "sqlite: migrated");
    }
    transaction.commit().map_err(failed)
}
