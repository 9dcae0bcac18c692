//! Parameters of statements, and how rows become values.
use std::str::FromStr;

use rollcall_schema::{IdError, Sid};
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql},
};

use crate::StoreError;

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A row that cannot be read: somebody else wrote it.
pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Refused(format!("unreadable row: {error}"))
}

/// A column's value.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(unreadable)
}

/// A column's value, where a missing row is an error.
pub(super) fn only<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<T, StoreError> {
    get(rows.first().ok_or_else(|| unreadable("none"))?, 0)
}

/// A column's text, parsed.
pub(super) fn parse<T: FromStr<Err = IdError>>(row: &Row, column: usize) -> Result<T, StoreError> {
    get::<&str>(row, column)?.parse().map_err(unreadable)
}

/// Reads what [`Sid`]'s display wrote.
pub(super) fn sid(text: &str) -> Result<Sid, StoreError> {
    Sid::parse(text).map_err(unreadable)
}

/// A count from SQL.
pub(super) fn unsigned<N: TryFrom<i64, Error: std::fmt::Display>>(count: i64) -> Result<N, StoreError> {
    N::try_from(count).map_err(unreadable)
}

/// A limit as SQL takes it.
pub(super) fn whole(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}
