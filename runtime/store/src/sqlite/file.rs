//! Opens the database's file, and takes the lock beside it that a serving process holds.
use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, config::DbConfig};

use super::db_thread::failed;
use crate::StoreError;

/// How long a statement waits for another writer, such as a load, or a person with the sqlite3 tool.
const BUSY: Duration = Duration::from_secs(1);
/// The size of the cache of prepared statements. All statements of the store fit.
const STATEMENTS: usize = 64;
/// The checkpointer moves the log into the file. The writer does so only if the log has grown to 64 MiB, because the
/// checkpointer cannot keep up.
const PRAGMAS: &str = "pragma journal_mode = wal; pragma synchronous = normal; pragma wal_autocheckpoint = 16384; \
    pragma temp_store = memory; pragma cache_size = -1024; \
    pragma cache_spill = off; pragma foreign_keys = on;";
const TOLD: &str = "create temp table takeover (sid text primary key) without rowid; \
    create temp table kick (sid text not null, lesson_id text);";

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)
        .map_err(|error| StoreError::Refused(format!("cannot open {}: {error}", path.display())))?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on the bound values, so that no statement is prepared again for each row.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    connection.execute_batch(PRAGMAS).map_err(failed)?;
    Ok(connection)
}

/// Opens the writer's connection. It has tables of the connections that lost their session to another connection or to
/// an operator, until they are told. The tables are in memory, because these connections end with the process.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = open(path)?;
    connection.execute_batch(TOLD).map_err(failed)?;
    Ok(connection)
}

/// Takes the lock that a serving process holds while it lives.
pub(super) fn lock(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let shown = Path::new(&path).display().to_string();
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| StoreError::Refused(format!("{shown}: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Refused(format!(
            "another rollcall is serving {} (it holds {shown}): stop it first, or give this one a DATABASE_URL of its own",
            database.display()
        ))),
        Err(TryLockError::Error(error)) => Err(StoreError::Refused(format!("{shown}: {error}"))),
    }
}
