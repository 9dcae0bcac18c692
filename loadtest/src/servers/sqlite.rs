//! Runs statements on the SQLite file of an embedded gateway while the gateway uses it.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

/// How long a statement waits while the gateway writes.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// Runs a statement. As [`psql`](super::psql) does, it returns a line for each row, with its columns divided by `|`.
///
/// # Errors
/// Returns an error if there is no such file, or the statement fails.
pub fn sqlite(file: &Path, statement: &str) -> io::Result<String> {
    lines(file, statement).map_err(io::Error::other)
}

fn lines(file: &Path, statement: &str) -> rusqlite::Result<String> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    let mut statement = connection.prepare(statement)?;
    let columns = statement.column_count();
    let line = |row: &Row<'_>| {
        let columns = (0..columns).map(|column| text(row, column));
        Ok(columns.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
    };
    let lines = statement.query_map([], line)?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(lines.join("\n"))
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        ValueRef::Integer(number) => Ok(number.to_string()),
        other => Ok(String::from_utf8_lossy(other.as_bytes()?).into_owned()),
    }
}
