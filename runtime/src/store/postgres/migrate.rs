//! Brings the tables up to date: in one transaction, one process at a time.
use std::time::Duration;

use rollcall_schema::sql::{Migration, POSTGRES};

use super::{
    LOCKS,
    connect::{Connector, Dedicated},
};
use crate::store::{StoreError, postgres::pool::unreadable};

/// A migration may wait for another process's, and for the tables' readers.
const LIMIT: Duration = Duration::from_secs(30);
/// A start may wait for a busy server longer than a call may.
const CONNECT: Duration = Duration::from_secs(5);
const SETTINGS: &str = "-c statement_timeout=30000 -c lock_timeout=30000";
/// The lock's number beside the shards'.
const MIGRATION: i32 = 200;

pub(super) async fn migrate(connector: &Connector) -> Result<(), StoreError> {
    let connection = Dedicated::connect(connector, SETTINGS, CONNECT, None).await?;
    connection.run(LIMIT, "begin").await?;
    connection.rows(LIMIT, "select pg_advisory_xact_lock($1, $2)", &[&LOCKS, &MIGRATION]).await?;
    connection
        .run(
            LIMIT,
            "create table if not exists migration (version integer primary key, name text not null, \
             applied_at timestamptz not null default clock_timestamp())",
        )
        .await?;
    let found = connection.rows(LIMIT, "select coalesce(max(version), 0) from migration", &[]).await?;
    let found: i32 = found.first().ok_or_else(|| unreadable("none"))?.try_get(0).map_err(unreadable)?;
    for Migration { version, name, sql } in missing(found)? {
        connection.run(LIMIT, sql).await?;
        connection.rows(LIMIT, "insert into migration (version, name) values ($1, $2)", &[version, name]).await?;
        tracing::info!(name, "postgres: migrated");
    }
    connection.run(LIMIT, "commit").await
}

fn missing(found: i32) -> Result<&'static [Migration], StoreError> {
    crate::store::missing(POSTGRES, found)
}
