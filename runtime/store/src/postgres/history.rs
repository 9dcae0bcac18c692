//! The history of sessions. Rows are found by the index on the classroom and the end.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{ClassroomId, LessonId, SessionId, UserId};
use tokio_postgres::Row;

use super::{
    LOCKS,
    rows::{get, parse, unreadable, unsigned, whole},
    store::PostgresStore,
};
use crate::{History, HistoryPosition, HistorySweep, Moment, StoreError, Visit, VisitEnd};

/// The advisory lock of the node that sweeps. Its number differs from those of the outbox's shards.
const SWEEP: i32 = 101;

/// The part is materialized, so that the index on ids, which has all classrooms, is not used.
const PRESENT: &str = "with here as materialized (
        select id, agent_id, user_id, lesson_id, started_at from agent_session where classroom_id = $1
    )
    select id, agent_id, user_id, lesson_id, (extract(epoch from started_at) * 1000000)::bigint, null::bigint, null::text
    from here where id > $2 order by id limit $3";

const PAST: &str = "select id, agent_id, user_id, lesson_id, (extract(epoch from lower(lifetime)) * 1000000)::bigint,
        (extract(epoch from upper(lifetime)) * 1000000)::bigint, reason
    from agent_session_history
    where classroom_id = $1
        and (upper(lifetime), id) > (timestamptz 'epoch' + $2::bigint * interval '1 microsecond', $3)
    order by upper(lifetime), id limit $4";

/// Ids ascend roughly as sessions begin, so a batch of which no session began before the limit is the last one.
const SWEEP_BATCH: &str = "with turn as materialized (
        select pg_try_advisory_xact_lock($1, $2) as mine, clock_timestamp() - make_interval(secs => $3::float8) as old
    ), looked as materialized (
        select h.id, h.lifetime from turn cross join lateral (
            select id, lifetime from agent_session_history where turn.mine and id > $4 order by id limit $5
        ) as h
    ), gone as (
        delete from agent_session_history h using turn cross join looked
        where h.id = any (array[looked.id]) and upper(looked.lifetime) < turn.old
        returning h.id
    )
    select mine, (select count(*) from gone), (select max(id) from looked),
        coalesce((select bool_or(lower(lifetime) < old) from looked), false)
    from turn";

fn visit(row: &Row) -> Result<Visit, StoreError> {
    let lesson: Option<&str> = get(row, 3)?;
    let end = match get::<Option<i64>>(row, 5)? {
        Some(at) => Some(VisitEnd { at: Moment(at), reason: get(row, 6)? }),
        None => None,
    };
    Ok(Visit {
        session: SessionId(get(row, 0)?),
        agent: parse(row, 1)?,
        user: UserId::parse(get(row, 2)?).map_err(unreadable)?,
        lesson: lesson.map(LessonId::parse).transpose().map_err(unreadable)?,
        entered: Moment(get(row, 4)?),
        end,
    })
}

#[async_trait]
impl History for PostgresStore {
    async fn present(&self, classroom: ClassroomId, after: SessionId, max: usize) -> Result<Vec<Visit>, StoreError> {
        let rows = self.pool.rows("present", PRESENT, &[&classroom.0, &after.0, &whole(max)]).await?;
        rows.iter().map(visit).collect()
    }

    async fn past(&self, classroom: ClassroomId, after: HistoryPosition, max: usize) -> Result<Vec<Visit>, StoreError> {
        let HistoryPosition { ended, session } = after;
        let rows = self.pool.rows("past", PAST, &[&classroom.0, &ended.0, &session.0, &whole(max)]).await?;
        rows.iter().map(visit).collect()
    }

    async fn sweep_history(
        &self,
        keep: Duration,
        after: SessionId,
        max: usize,
    ) -> Result<Option<HistorySweep>, StoreError> {
        let max = whole(max);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&LOCKS, &SWEEP, &keep.as_secs_f64(), &after.0, &max];
        let rows = self.sweep.rows("sweep_history", SWEEP_BATCH, &parameters).await?;
        let row = rows.first().ok_or_else(|| unreadable("none"))?;
        if !get::<bool>(row, 0)? {
            return Ok(None);
        }
        let (last, more): (Option<i64>, bool) = (get(row, 2)?, get(row, 3)?);
        let deleted = unsigned(get(row, 1)?)?;
        Ok(Some(HistorySweep { deleted, next: last.filter(|_| more).map(SessionId) }))
    }
}
