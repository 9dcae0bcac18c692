//! Queries for operators.
use std::{ops::RangeInclusive, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Epoch, JsonObject, LessonId, NodeId, Seat, SessionId};
use rusqlite::{Connection, Row, params};

use super::{
    db_thread::failed,
    rows::{rows, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{LiveClassroom, LiveSession, NodeReport, NodeRow, Overview, PastSession, StoreError, Whose};

/// The index has the classrooms in this order.
const CLASSROOMS: &str = "select classroom_id, count(*) from agent_session where classroom_id between ?1 and ?2 \
    group by classroom_id order by classroom_id limit ?3";

macro_rules! sessions {
    ($which:literal) => {
        concat!(
            "select id, agent_id, classroom_id, role, lesson_id, seat, node_id, replace(started_at, ' ', 'T') || 'Z', ",
            "replace(joined_at, ' ', 'T') || 'Z', info, state, replace(taken_over_at, ' ', 'T') || 'Z' \
             from agent_session where ",
            $which,
            " and id > ?2 order by id limit ?3"
        )
    };
}

const SESSIONS_OF: &str = sessions!("user_id = ?1 and (?4 is null or agent_id = ?4)");
const SESSIONS_IN: &str = sessions!("classroom_id = ?1");

const PAST_SESSIONS_OF: &str = "select id, agent_id, classroom_id, lesson_id, replace(started_at, ' ', 'T') || 'Z', \
    replace(ended_at, ' ', 'T') || 'Z', reason, cause, replace(taken_over_at, ' ', 'T') || 'Z' from agent_session_history \
    where user_id = ?1 and (?4 is null or agent_id = ?4) and id < ?2 order by id desc limit ?3";

const NODES: &str = "select id, label, epoch, replace(lease_until, ' ', 'T') || 'Z', \
    lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), \
    (select count(*) from agent_session where node_id = node.id) from node order by id";

/// julianday counts days, so the result is multiplied to seconds.
const REPORTS: &str = "select id, label, lease_until > strftime('%Y-%m-%d %H:%M:%f', 'now'), \
    max((julianday(lease_until) - julianday('now')) * 86400.0, 0.0) from node order by id";

#[async_trait]
impl Overview for SqliteStore {
    async fn live_classrooms(
        &self,
        ids: RangeInclusive<ClassroomId>,
        max: usize,
    ) -> Result<Vec<LiveClassroom>, StoreError> {
        let (from, through) = (ids.start().to_string(), ids.end().to_string());
        let read =
            move |connection: &Connection| rows(connection, CLASSROOMS, params![from, through, whole(max)], classroom);
        self.reader.call("classrooms", read).await
    }

    async fn sessions_of(&self, whose: &Whose, after: SessionId, max: usize) -> Result<Vec<LiveSession>, StoreError> {
        let (user, agent) = (whose.user(), whose.agent().map(ToString::to_string));
        let read = move |connection: &Connection| {
            rows(connection, SESSIONS_OF, params![user.as_str(), after.0, whole(max), agent], session)
        };
        self.reader.call("sessions", read).await
    }

    async fn sessions_in(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LiveSession>, StoreError> {
        let read = move |connection: &Connection| {
            rows(connection, SESSIONS_IN, params![classroom.to_string(), after.0, whole(max)], session)
        };
        self.reader.call("sessions", read).await
    }

    async fn past_sessions_of(
        &self,
        whose: &Whose,
        before: SessionId,
        max: usize,
    ) -> Result<Vec<PastSession>, StoreError> {
        let (user, agent) = (whose.user(), whose.agent().map(ToString::to_string));
        let read = move |connection: &Connection| {
            rows(connection, PAST_SESSIONS_OF, params![user.as_str(), before.0, whole(max), agent], past_session)
        };
        self.reader.call("history", read).await
    }

    async fn reports(&self) -> Result<Vec<NodeReport>, StoreError> {
        self.reader.call("reports", |connection| rows(connection, REPORTS, [], report)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.reader.call("nodes", |connection| rows(connection, NODES, [], node)).await
    }
}

fn classroom(row: &Row<'_>) -> Result<LiveClassroom, StoreError> {
    let classroom_id = ClassroomId::parse(&text(row, 0)?).map_err(unreadable)?;
    Ok(LiveClassroom { classroom_id, agents: count(row, 1)? })
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
        joined_at: row.get(8).map_err(failed)?,
        info: object(row, 9)?,
        state: object(row, 10)?,
        taken_over_at: row.get(11).map_err(failed)?,
    })
}

fn object(row: &Row<'_>, column: usize) -> Result<Option<JsonObject>, StoreError> {
    let text: Option<String> = row.get(column).map_err(failed)?;
    text.as_deref().map(JsonObject::parse).transpose().map_err(unreadable)
}

fn past_session(row: &Row<'_>) -> Result<PastSession, StoreError> {
    let lesson: Option<String> = row.get(3).map_err(failed)?;
    Ok(PastSession {
        session_id: SessionId(row.get(0).map_err(failed)?),
        agent_id: AgentId::parse(&text(row, 1)?).map_err(unreadable)?,
        classroom_id: ClassroomId::parse(&text(row, 2)?).map_err(unreadable)?,
        lesson_id: lesson.as_deref().map(LessonId::parse).transpose().map_err(unreadable)?,
        entered_at: text(row, 4)?,
        left_at: text(row, 5)?,
        reason: text(row, 6)?,
        cause: row.get(7).map_err(failed)?,
        taken_over_at: row.get(8).map_err(failed)?,
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

#[cfg(test)]
mod tests {
    use rusqlite::{Params, StatementStatus};

    use super::*;
    use crate::Schema;

    const MANY: u32 = 100_000;
    const PAGE: usize = 100;
    /// The maximum number of steps of a page. Stepping over all rows takes ten times as many.
    const MAX_STEPS: i32 = 100_000;

    /// Returns how many rows a query returns, and how many steps of SQLite's machine it took.
    fn cost(connection: &Connection, sql: &str, values: impl Params) -> (usize, i32) {
        let mut statement = connection.prepare(sql).expect("a statement");
        let mut rows = statement.query(values).expect("run");
        let mut count = 0;
        while rows.next().expect("a row").is_some() {
            count += 1;
        }
        drop(rows);
        (count, statement.get_status(StatementStatus::VmStep))
    }

    #[tokio::test]
    async fn a_page_of_a_hundred_thousand_classrooms_reads_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.db");
        let store = SqliteStore::open(&path).expect("opened");
        store.migrate().await.expect("migrated");
        let connection = Connection::open(&path).expect("opened");
        let fill = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
            insert into agent_session (agent_id, classroom_id, user_id, node_id, sid, role) \
            select 'web.u' || i || '.example.org', \
            printf('%08x-0000-4000-8000-%012x', (i * 2654435761) & 4294967295, i), 'u' || i, 1, i, 'participant' from n";
        assert_eq!(connection.execute(fill, [MANY]).expect("filled"), MANY as usize);

        let (least, most) = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff");
        let found = rows(&connection, CLASSROOMS, params![least, most, whole(PAGE)], classroom).expect("read");
        let (last, one) = (found[PAGE - 1].classroom_id.to_string(), found[PAGE / 2].classroom_id.to_string());
        let (last, one) = (last.as_str(), one.as_str());
        let pages = [(least, most), (last, most), ("7f000000", "7fffffff"), (one, one)];
        for ((from, through), rows) in pages.into_iter().zip([PAGE, PAGE, PAGE, 1]) {
            let (count, steps) = cost(&connection, CLASSROOMS, params![from, through, whole(PAGE)]);
            assert!(count == rows && steps < MAX_STEPS, "{count} rows in {steps} steps");
        }
        let (count, steps) = cost(&connection, SESSIONS_IN, params![one, 0, whole(PAGE)]);
        assert!(count == 1 && steps < MAX_STEPS, "{count} sessions in {steps} steps");
    }
}
