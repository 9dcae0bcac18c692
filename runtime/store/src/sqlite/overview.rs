//! Queries for operators.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Epoch, LessonId, NodeId, Seat, SessionId, UserId};
use rusqlite::{Connection, Row, params};

use super::{
    db_thread::failed,
    rows::{rows, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{LiveClassroom, LiveSession, NodeReport, NodeRow, Overview, StoreError};

/// The index has them in this order.
const CLASSROOMS: &str = "select classroom_id, count(*) from agent_session where classroom_id > ?1 \
    group by classroom_id order by classroom_id limit ?2";

const SESSIONS: &str = "select id, agent_id, classroom_id, role, lesson_id, seat, node_id, \
    replace(started_at, ' ', 'T') || 'Z' from agent_session where user_id = ?1 and id > ?2 order by id limit ?3";

const NODES: &str = "select id, label, epoch, replace(lease_until, ' ', 'T') || 'Z', \
    lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), \
    (select count(*) from agent_session where node_id = node.id) from node order by id";

/// Days, as julianday counts them, in seconds.
const REPORTS: &str = "select id, label, lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), \
    max((julianday(lease_until) - julianday('now')) * 86400.0, 0.0) from node order by id";

#[async_trait]
impl Overview for SqliteStore {
    async fn live_classrooms(&self, after: Option<ClassroomId>, max: usize) -> Result<Vec<LiveClassroom>, StoreError> {
        // Every id is above the empty text.
        let after = after.map(|after| after.to_string()).unwrap_or_default();
        self.reader.call("classrooms", move |connection| classrooms(connection, &after, max)).await
    }

    async fn sessions_of(&self, user: &UserId, after: SessionId, max: usize) -> Result<Vec<LiveSession>, StoreError> {
        let user = user.clone();
        let read = move |connection: &Connection| {
            rows(connection, SESSIONS, params![user.as_str(), after.0, whole(max)], session)
        };
        self.reader.call("sessions", read).await
    }

    async fn reports(&self) -> Result<Vec<NodeReport>, StoreError> {
        self.reader.call("reports", |connection| rows(connection, REPORTS, [], report)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.reader.call("nodes", |connection| rows(connection, NODES, [], node)).await
    }
}

fn classrooms(connection: &Connection, after: &str, max: usize) -> Result<Vec<LiveClassroom>, StoreError> {
    rows(connection, CLASSROOMS, params![after, whole(max)], |row| {
        let classroom_id = ClassroomId::parse(&text(row, 0)?).map_err(unreadable)?;
        Ok(LiveClassroom { classroom_id, agents: count(row, 1)? })
    })
}

fn session(row: &Row<'_>) -> Result<LiveSession, StoreError> {
    let lesson: Option<String> = row.get(4).map_err(failed)?;
    let seat: Option<u32> = row.get(5).map_err(failed)?;
    Ok(LiveSession {
        session_id: SessionId(row.get(0).map_err(failed)?),
        agent_id: AgentId::parse(&text(row, 1)?).map_err(unreadable)?,
        classroom_id: ClassroomId::parse(&text(row, 2)?).map_err(unreadable)?,
        role: text(row, 3)?.parse().map_err(unreadable)?,
        lesson_id: lesson.as_deref().map(LessonId::parse).transpose().map_err(unreadable)?,
        seat: seat.map(Seat),
        node_id: NodeId(row.get(6).map_err(failed)?),
        started_at: text(row, 7)?,
    })
}

fn report(row: &Row<'_>) -> Result<NodeReport, StoreError> {
    Ok(NodeReport {
        node_id: NodeId(row.get(0).map_err(failed)?),
        label: text(row, 1)?,
        alive: row.get(2).map_err(failed)?,
        lease_left: Duration::from_secs_f64(row.get(3).map_err(failed)?),
        statistics: None,
    })
}

fn node(row: &Row<'_>) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        node_id: NodeId(row.get(0).map_err(failed)?),
        label: text(row, 1)?,
        epoch: Epoch(row.get(2).map_err(failed)?),
        lease_until: text(row, 3)?,
        alive: row.get(4).map_err(failed)?,
        sessions: count(row, 5)?,
    })
}

fn count(row: &Row<'_>, column: usize) -> Result<u64, StoreError> {
    row.get::<_, u32>(column).map(u64::from).map_err(failed)
}
