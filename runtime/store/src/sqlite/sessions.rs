//! Sessions, row by row. In one process and one transaction this costs as much as one statement would.
use async_trait::async_trait;
use rollcall_schema::{JsonObject, NodeId, SessionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    agent_states::{self, Identity},
    db_thread::failed,
    fence::fence,
    rows,
    session_end::{self, End},
    stale_fields,
    store::SqliteStore,
};
use crate::{Close, Closed, Lease, Open, Opened, Sessions, StoreError};

#[async_trait]
impl Sessions for SqliteStore {
    async fn open(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError> {
        let batch = batch.to_vec();
        let opened = self.writer.call("open", move |connection| open(connection, lease, &batch)).await?;
        self.wake();
        Ok(opened)
    }

    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError> {
        let batch = batch.to_vec();
        let closed = self.writer.call("close", move |connection| close(connection, lease, &batch)).await?;
        self.wake();
        Ok(closed)
    }
}

fn open(connection: &Connection, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError> {
    fence(connection, lease)?;
    batch.iter().map(|open| open_one(connection, lease, open)).collect()
}

fn open_one(connection: &Connection, lease: Lease, open: &Open) -> Result<Option<Opened>, StoreError> {
    let (classroom, agent) = (open.classroom.to_string(), open.agent.as_str());
    let sid = open.sid.to_string();
    let info = open.info.as_ref().map(JsonObject::as_str);
    let resume_id = open.resume_id.map(|id| id.0.get());
    let trace = open.trace.map(|trace| trace.to_string());
    let entered = connection
        .prepare_cached(
            "insert into agent_session (agent_id, classroom_id, user_id, node_id, sid, role, info, resume_id, \
             traceparent) select ?1, ?2, ?3, ?4, ?5, ?6, ?8, ?9, ?10 \
             where (select count(*) from (select 1 from agent_session where user_id = ?3 limit ?7)) < ?7 \
             on conflict (classroom_id, agent_id) do nothing",
        )
        .and_then(|mut statement| {
            let (user, role) = (open.user.as_str(), open.role.as_str());
            let (node, most) = (lease.node.0, open.user_sessions);
            let values = params![agent, classroom, user, node, sid, role, most, info, resume_id, trace];
            statement.execute(values)
        })
        .map_err(failed)?;
    if entered == 1 {
        let session = SessionId(connection.last_insert_rowid());
        connection
            .prepare_cached(
                "insert into outbox (classroom_id, agent_id, session_id, operation, info, traceparent) \
                 values (?1, ?2, ?3, 'entered', ?4, ?5)",
            )
            .and_then(|mut statement| statement.execute(params![classroom, agent, session.0, info, trace]))
            .map_err(failed)?;
        return Ok(Some(Opened { session, replaced: None }));
    }
    connection
        .prepare_cached(stale_fields::OF_OTHER)
        .and_then(|mut statement| statement.execute(params![classroom, agent, sid]))
        .map_err(failed)?;
    let identity = Identity { classroom: &classroom, agent, sid: &sid, role: open.role, info, trace: trace.as_deref() };
    agent_states::tell_identity(connection, &identity)?;
    // A connection that asks again gets the same answer.
    let taken_over: Option<(i64, Option<i64>, Option<String>)> = connection
        .prepare_cached(
            "update or fail agent_session set \
             previous_node = case when sid = ?4 then previous_node else node_id end, \
             previous_sid = case when sid = ?4 then previous_sid else sid end, \
             node_id = ?3, sid = ?4, role = ?5, info = ?6, resume_id = ?7, traceparent = ?8, \
             lesson_id = null, lesson_role = null, lesson_before = null, seat = null, joined_at = null, lesson_change = 0, \
             taken_over_at = case when sid = ?4 then taken_over_at else strftime('%Y-%m-%d %H:%M:%f', 'now') end \
             where classroom_id = ?1 and agent_id = ?2 returning id, previous_node, previous_sid",
        )
        .and_then(|mut statement| {
            let values = params![classroom, agent, lease.node.0, sid, open.role.as_str(), info, resume_id, trace];
            statement.query_row(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(failed)?;
    // The user has as many sessions as it may have, and this one is new.
    let Some((session, node, previous)) = taken_over else { return Ok(None) };
    // Connections of an earlier process ended with it. After a restart every agent takes its session over.
    if let Some(previous) = previous.as_ref().filter(|_| node == Some(lease.node.0)) {
        connection
            .prepare_cached("insert or ignore into temp.takeover (sid) values (?1)")
            .and_then(|mut statement| statement.execute([previous]))
            .map_err(failed)?;
    }
    let replaced = node.zip(previous).map(|(node, text)| Ok((NodeId(node), rows::sid(&text)?))).transpose()?;
    Ok(Some(Opened { session: SessionId(session), replaced }))
}

fn close(connection: &Connection, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError> {
    fence(connection, lease)?;
    batch.iter().map(|close| close_one(connection, close)).collect()
}

fn close_one(connection: &Connection, close: &Close) -> Result<Closed, StoreError> {
    let (classroom, agent, sid) = (close.classroom.to_string(), close.agent.as_str(), close.sid.to_string());
    let session: Option<i64> = connection
        .prepare_cached("select id from agent_session where classroom_id = ?1 and agent_id = ?2 and sid = ?3")
        .and_then(|mut owned| owned.query_row(params![classroom, agent, sid], |row| row.get(0)).optional())
        .map_err(failed)?;
    let Some(session) = session else { return Ok(Closed::NotOwner) };
    let end = End { reason: close.reason, held: false, resumable: close.resume_id.is_some() };
    session_end::end(connection, session, end)?;
    Ok(Closed::Left)
}
