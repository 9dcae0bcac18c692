//! Parameters of statements, and values of rows.
use std::str::FromStr;

use rollcall_schema::{IdError, Sid};
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql},
};

use crate::StoreError;

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Returns the error for a row that cannot be read, because another program wrote it.
pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Refused(format!("unreadable row: {error}"))
}

/// Returns the value of a column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(unreadable)
}

/// Returns the value of the only row. A missing row is an error.
pub(super) fn only<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<T, StoreError> {
    get(rows.first().ok_or_else(|| unreadable("none"))?, 0)
}

/// Returns the text of a column, parsed.
pub(super) fn parse<T: FromStr<Err = IdError>>(row: &Row, column: usize) -> Result<T, StoreError> {
    get::<&str>(row, column)?.parse().map_err(unreadable)
}

/// Parses the text that [`Sid`]'s display makes.
pub(super) fn sid(text: &str) -> Result<Sid, StoreError> {
    Sid::parse(text).map_err(unreadable)
}

/// Returns a count in SQL as an unsigned number.
pub(super) fn unsigned<N: TryFrom<i64, Error: std::fmt::Display>>(count: i64) -> Result<N, StoreError> {
    N::try_from(count).map_err(unreadable)
}

/// Returns a limit as a number for SQL.
pub(super) fn whole(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}
