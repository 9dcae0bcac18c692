//! Values of rows.
use rollcall_schema::Sid;
use rusqlite::{Connection, Row};

use super::db_thread::failed;
use crate::StoreError;

/// Returns the error for a row that cannot be read, because another program wrote it.
pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Refused(format!("unreadable row: {error}"))
}

/// Parses the text that [`Sid`]'s display makes.
pub(super) fn sid(text: &str) -> Result<Sid, StoreError> {
    Sid::parse(text).map_err(unreadable)
}

pub(super) fn whole(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

pub(super) fn text(row: &Row<'_>, column: usize) -> Result<String, StoreError> {
    row.get(column).map_err(failed)
}

/// Reads all rows of a statement, each as a value.
pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    value: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(values).map_err(failed)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        all.push(value(row)?);
    }
    Ok(all)
}
