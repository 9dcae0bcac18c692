//! The state that an agent sets, row by row. As in Postgres, its version is the id of its event.
use async_trait::async_trait;
use rollcall_schema::{JsonObject, Role, StateVersion};
use rusqlite::{Connection, OptionalExtension, params};

use super::{db_thread::failed, fence::fence, store::SqliteStore};
use crate::{AgentStates, Lease, SetState, StoreError};

const OWNED: &str = "select state_n from agent_session where id = ?1 and sid = ?2";
const FOLD: &str = "delete from outbox where id = ?1 returning role is not null";
/// `?3` says whether the event also has role and info.
const UPDATED: &str = "insert into outbox (classroom_id, agent_id, session_id, operation, state, role, info, \
    traceparent) \
    select classroom_id, agent_id, id, 'updated', ?2, iif(?3, role, null), iif(?3, info, null), traceparent \
    from agent_session where id = ?1";
const WRITE: &str = "update or fail agent_session set state = ?2, state_n = ?3 where id = ?1";

/// A takeover with another role or info changes both, and writes the agent.updated that has them.
const IDENTITY: &str = "select id, state from agent_session \
    where classroom_id = ?1 and agent_id = ?2 and sid <> ?3 and (role <> ?4 or info is not ?5)";
const IDENTIFIED: &str = "insert into outbox (classroom_id, agent_id, session_id, operation, state, role, info, \
    traceparent) values (?1, ?2, ?3, 'updated', ?4, ?5, ?6, ?7)";
const VERSION: &str = "update or fail agent_session set state_n = ?2 where id = ?1";

#[async_trait]
impl AgentStates for SqliteStore {
    async fn set_state(&self, lease: Lease, batch: &[SetState]) -> Result<Vec<Option<StateVersion>>, StoreError> {
        let batch = batch.to_vec();
        let set = move |connection: &Connection| {
            fence(connection, lease)?;
            batch.iter().map(|set| set_one(connection, set)).collect()
        };
        let versions = self.writer.call("set_state", set).await?;
        self.wake();
        Ok(versions)
    }
}

fn set_one(connection: &Connection, set: &SetState) -> Result<Option<StateVersion>, StoreError> {
    let session = set.session.0;
    let owned: Option<Option<i64>> = connection
        .prepare_cached(OWNED)
        .and_then(|mut owned| owned.query_row(params![session, set.sid.to_string()], |row| row.get(0)).optional())
        .map_err(failed)?;
    let Some(before) = owned else { return Ok(None) };
    let folded: Option<bool> = connection
        .prepare_cached(FOLD)
        .and_then(|mut fold| fold.query_row([before], |row| row.get(0)).optional())
        .map_err(failed)?;
    let state = set.state.as_ref().map(JsonObject::as_str);
    connection
        .prepare_cached(UPDATED)
        .and_then(|mut updated| updated.execute(params![session, state, folded.unwrap_or(false)]))
        .map_err(failed)?;
    let version = connection.last_insert_rowid();
    connection
        .prepare_cached(WRITE)
        .and_then(|mut write| write.execute(params![session, state, version]))
        .map_err(failed)?;
    Ok(Some(StateVersion(version)))
}

/// The role and info that a takeover is about to change.
pub(super) struct Identity<'a> {
    pub(super) classroom: &'a str,
    pub(super) agent: &'a str,
    pub(super) sid: &'a str,
    pub(super) role: Role,
    pub(super) info: Option<&'a str>,
    pub(super) trace: Option<&'a str>,
}

/// Writes role and info and their agent.updated, if the connection that takes over has others than the one before.
pub(super) fn tell_identity(connection: &Connection, identity: &Identity<'_>) -> Result<(), StoreError> {
    let Identity { classroom, agent, sid, role, info, trace } = identity;
    let changed: Option<(i64, Option<String>)> = connection
        .prepare_cached(IDENTITY)
        .and_then(|mut changed| {
            let values = params![classroom, agent, sid, role.as_str(), info];
            changed.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failed)?;
    let Some((session, state)) = changed else { return Ok(()) };
    connection
        .prepare_cached(IDENTIFIED)
        .and_then(|mut told| told.execute(params![classroom, agent, session, state, role.as_str(), info, trace]))
        .map_err(failed)?;
    let version = connection.last_insert_rowid();
    connection.prepare_cached(VERSION).and_then(|mut write| write.execute([session, version])).map(drop).map_err(failed)
}
