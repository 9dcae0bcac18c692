//! Brings the tables up to date in one transaction, by one process at a time.
//!
//! Invariant: tables that are up to date are only read, so that an account without the right to change tables can
//! serve.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::sql::{Migration, POSTGRES};
use uuid::Uuid;

use super::{
    LOCKS,
    connect::Dedicated,
    rights,
    rows::{get, only, unreadable},
    schema_name::SchemaName,
    store::PostgresStore,
};
use crate::{
    Schema, StoreError,
    migrations::{STATE, State, migration_table, names},
};

/// How long a migration may take. It may wait for another process's, and for readers of the tables.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a start may wait for a connection. A busy server may take longer than a call may.
const CONNECT: Duration = Duration::from_secs(5);
const SETTINGS: &str = "-c statement_timeout=30000 -c lock_timeout=30000";
/// The number of the lock. It differs from those of the shards.
const MIGRATION: i32 = 200;

#[async_trait]
impl Schema for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let connection = Dedicated::connect(&self.connector, SETTINGS, CONNECT).await?;
        let missing = state(&connection).await?.missing(POSTGRES)?;
        if missing.is_empty() {
            return rights::missing(&connection).await?.map_or(Ok(()), |lacks| Err(StoreError::Refused(lacks)));
        }
        match apply(&connection, self.connector.schema.as_ref()).await {
            Err(StoreError::Refused(why)) => {
                let row = connection.rows(LIMIT, "select current_user::text", &[]).await;
                let role = row.ok().and_then(|rows| rows.first()?.try_get(0).ok()).unwrap_or_else(|| "?".to_owned());
                Err(StoreError::Refused(format!(
                    "{} missing, and the role {role} may not make them ({why}): run `rollcall migrate` once as the owner of \
                     the tables",
                    listed(missing)
                )))
            }
            applied => applied,
        }
    }

    async fn missing_migrations(&self) -> Result<Vec<&'static str>, StoreError> {
        let connection = Dedicated::connect(&self.connector, SETTINGS, CONNECT).await?;
        Ok(names(state(&connection).await?.missing(POSTGRES)?))
    }

    async fn missing_rights(&self) -> Result<Option<String>, StoreError> {
        let connection = Dedicated::connect(&self.connector, SETTINGS, CONNECT).await?;
        rights::missing(&connection).await
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        only(&self.pool.rows("installation", "select id from installation", &[]).await?)
    }

    async fn signing_key(&self) -> Result<Vec<u8>, StoreError> {
        only(&self.pool.rows("installation", "select signing_key from installation", &[]).await?)
    }
}

/// Returns the beginning of a sentence about migrations, such as `migration 0001_presence is`.
fn listed(missing: &[Migration]) -> String {
    match names(missing)[..] {
        [one] => format!("the migration {one} is"),
        ref several => format!("the migrations {} are", several.join(", ")),
    }
}

async fn state(connection: &Dedicated) -> Result<State, StoreError> {
    let made = connection.rows(LIMIT, "select to_regclass('migration') is not null", &[]).await?;
    if !made.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(State::default());
    }
    let rows = connection.rows(LIMIT, STATE, &[]).await?;
    let row = rows.first().ok_or_else(|| unreadable("none"))?;
    Ok(State { version: get(row, 0)?, compatible_from: get(row, 1)? })
}

async fn apply(connection: &Dedicated, schema: Option<&SchemaName>) -> Result<(), StoreError> {
    connection.run(LIMIT, "begin").await?;
    let applied = apply_missing(connection, schema).await;
    let end = if applied.is_ok() { "commit" } else { "rollback" };
    connection.run(LIMIT, end).await.and(applied)
}

async fn apply_missing(connection: &Dedicated, schema: Option<&SchemaName>) -> Result<(), StoreError> {
    connection.rows(LIMIT, "select pg_advisory_xact_lock($1, $2)", &[&LOCKS, &MIGRATION]).await?;
    if let Some(schema) = schema {
        create(connection, schema).await?;
    }
    connection.run(LIMIT, migration_table!("timestamptz not null default clock_timestamp()")).await?;
    // Another process may have migrated the tables meanwhile.
    for Migration { version, name, sql, compatible_from } in state(connection).await?.missing(POSTGRES)? {
        connection.run(LIMIT, sql).await?;
        let applied = "insert into migration (version, name, compatible_from) values ($1, $2, $3)";
        connection.rows(LIMIT, applied, &[version, name, compatible_from]).await?;
        tracing::info!(name, "postgres: migrated");
    }
    Ok(())
}

async fn create(connection: &Dedicated, schema: &SchemaName) -> Result<(), StoreError> {
    let found = connection.rows(LIMIT, "select to_regnamespace($1::text) is not null", &[&schema.to_string()]).await?;
    match found.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        true => Ok(()),
        // Even if the schema exists, `create schema` would need a right that nothing else needs.
        false => connection.run(LIMIT, &format!("create schema {schema}")).await,
    }
}
