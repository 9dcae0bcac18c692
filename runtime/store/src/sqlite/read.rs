//! What is asked without writing, and how rows become values.
use std::time::Duration;

use rollcall_schema::{AgentId, ClassroomId, LessonId, NodeId, Nonce, SessionId, Sid, UserId};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::db_thread::failed;
use crate::{Backlog, Change, LessonMembership, OutboxRow, StoreError, aside};

/// A row that cannot be read: somebody else wrote it.
pub(super) fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Refused(format!("unreadable row: {error}"))
}

/// Reads what [`Sid`]'s display wrote.
pub(super) fn sid(text: &str) -> Result<Sid, StoreError> {
    Sid::parse(text).map_err(unreadable)
}

pub(super) fn whole(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

pub(super) fn text(row: &Row<'_>, column: usize) -> Result<String, StoreError> {
    row.get(column).map_err(failed)
}

/// All rows of a statement, each made into a value.
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

pub(super) fn placed(
    connection: &Connection,
    node: NodeId,
    after: SessionId,
    most: usize,
) -> Result<Vec<LessonMembership>, StoreError> {
    const SQL: &str = "select s.id, s.sid, s.user_id, s.role, s.lesson_id, l.seats \
        from agent_session s join lesson l on l.id = s.lesson_id \
        where s.node_id = ?1 and s.id > ?2 order by s.id limit ?3";
    rows(connection, SQL, params![node.0, after.0, whole(most)], |row| {
        Ok(LessonMembership {
            session: SessionId(row.get(0).map_err(failed)?),
            sid: sid(&text(row, 1)?)?,
            user: UserId::parse(&text(row, 2)?).map_err(unreadable)?,
            role: text(row, 3)?.parse().map_err(unreadable)?,
            lesson: LessonId::parse(&text(row, 4)?).map_err(unreadable)?,
            seats: row.get(5).map_err(failed)?,
        })
    })
}

pub(super) fn agents(
    connection: &Connection,
    classroom: ClassroomId,
    after: SessionId,
    most: usize,
) -> Result<Vec<(SessionId, AgentId)>, StoreError> {
    const SQL: &str = "select id, agent_id from agent_session where classroom_id = ?1 and id > ?2 order by id limit ?3";
    rows(connection, SQL, params![classroom.to_string(), after.0, whole(most)], |row| {
        let agent = AgentId::parse(&text(row, 1)?).map_err(unreadable)?;
        Ok((SessionId(row.get(0).map_err(failed)?), agent))
    })
}

pub(super) fn count(connection: &Connection, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
    const SQL: &str = "select count(*) from agent_session where classroom_id = ?1";
    let mut statement = connection.prepare_cached(SQL).map_err(failed)?;
    let mut one = |classroom: &ClassroomId| statement.query_row([classroom.to_string()], |row| row.get::<_, u32>(0));
    classrooms.iter().map(|classroom| one(classroom).map(u64::from).map_err(failed)).collect()
}

pub(super) fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    connection.query_row("select not exists (select 1 from lesson)", [], |row| row.get(0)).map_err(failed)
}

pub(super) fn installation(connection: &Connection) -> Result<Uuid, StoreError> {
    let id: String = connection.query_row("select id from installation", [], |row| row.get(0)).map_err(failed)?;
    Uuid::parse_str(&id).map_err(unreadable)
}

/// The distance of the ids at its ends, which is the count but for rows that were published out of order: nothing is
/// walked.
pub(super) fn backlog(connection: &Connection) -> Result<Backlog, StoreError> {
    const SQL: &str = "select coalesce((select max(id) from outbox) - (select min(id) from outbox) + 1, 0), \
        coalesce((julianday('now') - julianday((select created_at from outbox order by id limit 1))) * 86400, 0)";
    let mut statement = connection.prepare_cached(SQL).map_err(failed)?;
    let (rows, lag): (i64, f64) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    Ok(Backlog { rows: u64::try_from(rows).unwrap_or(0), lag: Duration::from_secs_f64(lag.max(0.0)) })
}

/// Rows to publish, and those to set aside with the reason.
pub(super) type Sorted = (Vec<OutboxRow>, Vec<(Vec<i64>, String)>);

pub(super) fn outbox(connection: &Connection, most: usize) -> Result<Sorted, StoreError> {
    const SQL: &str = "select id, classroom_id, agent_id, session_id, reason,
        max((julianday('now') - julianday(created_at)) * 86400, 0), operation, nonce, exists (
            select 1 from outbox_quarantine a
            where a.classroom_id = outbox.classroom_id and a.agent_id = outbox.agent_id and a.id < outbox.id
        ) from outbox order by id limit ?1";
    let mut statement = connection.prepare_cached(SQL).map_err(failed)?;
    let mut rows = statement.query([whole(most)]).map_err(failed)?;
    let mut sorted = aside::Sorted::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let id = row.get(0).map_err(failed)?;
        // What is no text is unreadable all the same.
        let key = (text(row, 1).unwrap_or_default(), text(row, 2).unwrap_or_default());
        sorted.add(key, id, row.get(8).map_err(failed)?, || outbox_row(row));
    }
    Ok(sorted.end())
}

fn outbox_row(row: &Row<'_>) -> Result<OutboxRow, StoreError> {
    let reason: Option<String> = row.get(4).map_err(failed)?;
    let waited: Option<f64> = row.get(5).map_err(failed)?;
    Ok(OutboxRow {
        id: row.get(0).map_err(failed)?,
        classroom: ClassroomId::parse(&text(row, 1)?).map_err(unreadable)?,
        agent: AgentId::parse(&text(row, 2)?).map_err(unreadable)?,
        session: SessionId(row.get(3).map_err(failed)?),
        change: Change::parse(&text(row, 6)?, reason.as_deref()).map_err(unreadable)?,
        nonce: Nonce(row.get(7).map_err(failed)?),
        waited: Duration::from_secs_f64(waited.unwrap_or_default()),
    })
}
