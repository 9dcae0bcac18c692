//! The history of sessions. Pages are read concurrently with writes. A sweep's batch is short, because no other write
//! runs meanwhile.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, SessionId, UserId};
use rusqlite::{Connection, Row, params};

use super::{
    db_thread::failed,
    rows::{rows, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{History, HistoryPosition, HistorySweep, Moment, StoreError, Visit, VisitEnd};

/// Times are stored as texts with milliseconds, and returned in microseconds.
const PRESENT: &str = "select id, agent_id, user_id, lesson_id, \
        cast(round(unixepoch(started_at, 'subsec') * 1000) as integer) * 1000, null, null \
    from agent_session where classroom_id = ?1 and id > ?2 order by id limit ?3";

macro_rules! past {
    ($which:literal) => {
        concat!(
            "select id, agent_id, user_id, lesson_id, ",
            "cast(round(unixepoch(started_at, 'subsec') * 1000) as integer) * 1000, ",
            "cast(round(unixepoch(ended_at, 'subsec') * 1000) as integer) * 1000, reason, ended_at ",
            "from agent_session_history where classroom_id = ?1 and ended_at ",
            $which
        )
    };
}

/// The query has two parts. For `(ended_at, id) > (...)` SQLite uses only the end in the index. Then it would read, for
/// each page again, all sessions that ended at the same time, as the sessions of a dead node do.
const PAST: &str = concat!(
    past!("= strftime('%Y-%m-%d %H:%M:%f', ?2 / 1000 / 1000.0, 'unixepoch') and id > ?3"),
    " union all ",
    past!("> strftime('%Y-%m-%d %H:%M:%f', ?2 / 1000 / 1000.0, 'unixepoch')"),
    " order by ended_at, id limit ?4"
);

/// As in Postgres, a batch of which no session began before the limit is the last one.
const LOOK: &str = "select max(id), coalesce(max(started_at < strftime('%Y-%m-%d %H:%M:%f', 'now', ?3)), 0) \
    from (select id, started_at from agent_session_history where id > ?1 order by id limit ?2)";

const SWEEP: &str = "delete from agent_session_history where id in \
        (select id from agent_session_history where id > ?1 order by id limit ?2) \
    and ended_at < strftime('%Y-%m-%d %H:%M:%f', 'now', ?3)";

fn visit(row: &Row<'_>) -> Result<Visit, StoreError> {
    let lesson: Option<String> = row.get(3).map_err(failed)?;
    let end: Option<i64> = row.get(5).map_err(failed)?;
    let end = end.map(|at| Ok(VisitEnd { at: Moment(at), reason: text(row, 6)? })).transpose()?;
    Ok(Visit {
        session: SessionId(row.get(0).map_err(failed)?),
        agent: AgentId::parse(&text(row, 1)?).map_err(unreadable)?,
        user: UserId::parse(&text(row, 2)?).map_err(unreadable)?,
        lesson: lesson.map(|lesson| LessonId::parse(&lesson)).transpose().map_err(unreadable)?,
        entered: Moment(row.get(4).map_err(failed)?),
        end,
    })
}

fn sweep(connection: &Connection, keep: Duration, after: SessionId, max: usize) -> Result<HistorySweep, StoreError> {
    let old = format!("-{:.3} seconds", keep.as_secs_f64());
    let values = params![after.0, whole(max), old];
    let mut look = connection.prepare_cached(LOOK).map_err(failed)?;
    let (last, more): (Option<i64>, bool) =
        look.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    let mut sweep = connection.prepare_cached(SWEEP).map_err(failed)?;
    let deleted = sweep.execute(values).map_err(failed)?;
    Ok(HistorySweep { deleted: deleted as u64, next: last.filter(|_| more).map(SessionId) })
}

#[async_trait]
impl History for SqliteStore {
    async fn present(&self, classroom: ClassroomId, after: SessionId, max: usize) -> Result<Vec<Visit>, StoreError> {
        let page = move |connection: &Connection| {
            rows(connection, PRESENT, params![classroom.to_string(), after.0, whole(max)], visit)
        };
        self.reader.call("present", page).await
    }

    async fn past(&self, classroom: ClassroomId, after: HistoryPosition, max: usize) -> Result<Vec<Visit>, StoreError> {
        let HistoryPosition { ended, session } = after;
        let page = move |connection: &Connection| {
            rows(connection, PAST, params![classroom.to_string(), ended.0, session.0, whole(max)], visit)
        };
        self.reader.call("past", page).await
    }

    async fn sweep_history(
        &self,
        keep: Duration,
        after: SessionId,
        max: usize,
    ) -> Result<Option<HistorySweep>, StoreError> {
        self.writer.call("sweep_history", move |connection| sweep(connection, keep, after, max)).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::Schema;

    const MANY: u32 = 100_000;
    const PAGE: usize = 100;
    /// A query that reads all rows takes several times as many steps.
    const MAX_STEPS: i32 = 50_000;

    #[tokio::test]
    async fn a_page_of_those_who_left_at_one_moment_reads_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.db");
        let store = SqliteStore::open(&path).expect("opened");
        store.migrate().await.expect("migrated");
        let connection = Connection::open(&path).expect("opened");
        let fill = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
            insert into agent_session_history (id, agent_id, classroom_id, user_id, started_at, ended_at, reason) \
            select i, 'web.u' || i || '.example.org', '2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001', 'u' || i, \
            '2026-01-01 08:00:00.000', '2026-01-01 09:00:00.000', 'node_lost' from n";
        assert_eq!(connection.execute(fill, [MANY]).expect("filled"), MANY as usize);

        let room = ClassroomId::parse("2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001").expect("a classroom");
        let first =
            store.past(room, HistoryPosition { ended: Moment(0), session: SessionId(0) }, 1).await.expect("read");
        let ended = first[0].end.clone().expect("it has ended").at;
        let mut statement = connection.prepare(PAST).expect("a statement");
        for after in [0, i64::from(MANY) / 2, i64::from(MANY) - 1] {
            let found = statement
                .query_map(params![room.to_string(), ended.0, after, whole(PAGE)], |row| row.get::<_, i64>(0))
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .expect("read");
            let steps = statement.reset_status(StatementStatus::VmStep);
            let through = i64::from(MANY).min(after + whole(PAGE));
            assert_eq!(found, (after + 1..=through).collect::<Vec<_>>());
            assert!(steps < MAX_STEPS, "{steps} steps after {after}");
        }
    }
}
