//! Queries for operators.
use std::{ops::RangeInclusive, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Epoch, JsonObject, LessonId, NodeId, Seat, SessionId};
use tokio_postgres::Row;

use super::{
    rows::{get, parse, unreadable, unsigned, whole},
    store::PostgresStore,
};
use crate::{LiveClassroom, LiveSession, NodeReport, NodeRow, Overview, PastSession, StoreError, Whose};

macro_rules! rfc3339 {
    ($time:literal) => {
        concat!("to_char(", $time, " at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
    };
}

/// Steps from one classroom to the next in the index. A `group by` would read all agents, because not every version of
/// PostgreSQL steps through an index by itself.
const CLASSROOMS: &str = "with recursive room as (
        (
            select classroom_id from agent_session where classroom_id >= $1 and classroom_id <= $2
            order by classroom_id limit 1
        )
        union all
        select (
            select s.classroom_id from agent_session s
            where s.classroom_id > room.classroom_id and s.classroom_id <= $2 order by s.classroom_id limit 1
        ) from room where room.classroom_id is not null
    )
    select classroom_id, (select count(*) from agent_session s where s.classroom_id = room.classroom_id)
    from room where classroom_id is not null limit $3";

/// The part is materialized, so that the index on ids, which has all sessions, is not used.
macro_rules! sessions {
    ($which:literal) => {
        concat!(
            "with here as materialized (select * from agent_session where ",
            $which,
            ") select id, agent_id, classroom_id, role, lesson_id, seat, node_id, ",
            rfc3339!("started_at"),
            ", ",
            rfc3339!("joined_at"),
            ", info, state, ",
            rfc3339!("taken_over_at"),
            " from here where id > $2 order by id limit $3"
        )
    };
}

const SESSIONS_OF: &str = sessions!("user_id = $1 and ($4::text is null or agent_id = $4)");
const SESSIONS_IN: &str = sessions!("classroom_id = $1");

const PAST_SESSIONS_OF: &str = concat!(
    "with theirs as materialized (
        select * from agent_session_history where user_id = $1 and ($4::text is null or agent_id = $4)
    )
    select id, agent_id, classroom_id, lesson_id, ",
    rfc3339!("lower(lifetime)"),
    ", ",
    rfc3339!("upper(lifetime)"),
    ", reason, cause, ",
    rfc3339!("taken_over_at"),
    " from theirs where id < $2 order by id desc limit $3"
);

const NODES: &str = concat!(
    "select id, label, epoch, ",
    rfc3339!("lease_until"),
    ", not taken and lease_until > clock_timestamp(),
        (select count(*) from agent_session s where s.node_id = node.id)
    from node order by id"
);

const REPORTS: &str = "select id, label, not taken and lease_until > clock_timestamp(),
        greatest(extract(epoch from lease_until - clock_timestamp()), 0)::float8,
        statistics, greatest(extract(epoch from clock_timestamp() - statistics_at), 0)::float8
    from node order by id";

#[async_trait]
impl Overview for PostgresStore {
    async fn live_classrooms(
        &self,
        ids: RangeInclusive<ClassroomId>,
        max: usize,
    ) -> Result<Vec<LiveClassroom>, StoreError> {
        let rows = self.pool.rows("classrooms", CLASSROOMS, &[&ids.start().0, &ids.end().0, &whole(max)]).await?;
        let classroom =
            |row: &Row| Ok(LiveClassroom { classroom_id: ClassroomId(get(row, 0)?), agents: unsigned(get(row, 1)?)? });
        rows.iter().map(classroom).collect()
    }

    async fn sessions_of(&self, whose: &Whose, after: SessionId, max: usize) -> Result<Vec<LiveSession>, StoreError> {
        let (user, agent) = (whose.user(), whose.agent().map(AgentId::as_str));
        let rows = self.pool.rows("sessions", SESSIONS_OF, &[&user.as_str(), &after.0, &whole(max), &agent]).await?;
        rows.iter().map(session).collect()
    }

    async fn sessions_in(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LiveSession>, StoreError> {
        let rows = self.pool.rows("sessions", SESSIONS_IN, &[&classroom.0, &after.0, &whole(max)]).await?;
        rows.iter().map(session).collect()
    }

    async fn past_sessions_of(
        &self,
        whose: &Whose,
        before: SessionId,
        max: usize,
    ) -> Result<Vec<PastSession>, StoreError> {
        let (user, agent) = (whose.user(), whose.agent().map(AgentId::as_str));
        let values = (user.as_str(), before.0, whole(max), agent);
        let rows = self.pool.rows("history", PAST_SESSIONS_OF, &[&values.0, &values.1, &values.2, &values.3]).await?;
        rows.iter().map(past_session).collect()
    }

    async fn reports(&self) -> Result<Vec<NodeReport>, StoreError> {
        let rows = self.pool.rows("reports", REPORTS, &[]).await?;
        let report = |row: &Row| {
            let (statistics, age): (Option<String>, Option<f64>) = (get(row, 4)?, get(row, 5)?);
            Ok(NodeReport {
                node_id: NodeId(get(row, 0)?),
                label: get(row, 1)?,
                alive: get(row, 2)?,
                lease_left: Duration::from_secs_f64(get(row, 3)?),
                statistics: statistics.zip(age.map(Duration::from_secs_f64)),
            })
        };
        rows.iter().map(report).collect()
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let rows = self.pool.rows("nodes", NODES, &[]).await?;
        let node = |row: &Row| {
            Ok(NodeRow {
                node_id: NodeId(get(row, 0)?),
                label: get(row, 1)?,
                epoch: Epoch(get(row, 2)?),
                lease_until: get(row, 3)?,
                alive: get(row, 4)?,
                sessions: unsigned(get(row, 5)?)?,
            })
        };
        rows.iter().map(node).collect()
    }
}

fn session(row: &Row) -> Result<LiveSession, StoreError> {
    let lesson: Option<&str> = get(row, 4)?;
    let seat: Option<i32> = get(row, 5)?;
    Ok(LiveSession {
        session_id: SessionId(get(row, 0)?),
        agent_id: parse(row, 1)?,
        classroom_id: ClassroomId(get(row, 2)?),
        role: parse(row, 3)?,
        lesson_id: lesson.map(LessonId::parse).transpose().map_err(unreadable)?,
        seat: seat.map(|seat| unsigned(seat.into()).map(Seat)).transpose()?,
        node_id: NodeId(get(row, 6)?),
        started_at: get(row, 7)?,
        joined_at: get(row, 8)?,
        info: object(row, 9)?,
        state: object(row, 10)?,
        taken_over_at: get(row, 11)?,
    })
}

fn object(row: &Row, column: usize) -> Result<Option<JsonObject>, StoreError> {
    let text: Option<&str> = get(row, column)?;
    text.map(JsonObject::parse).transpose().map_err(unreadable)
}

fn past_session(row: &Row) -> Result<PastSession, StoreError> {
    let lesson: Option<&str> = get(row, 3)?;
    Ok(PastSession {
        session_id: SessionId(get(row, 0)?),
        agent_id: parse(row, 1)?,
        classroom_id: ClassroomId(get(row, 2)?),
        lesson_id: lesson.map(LessonId::parse).transpose().map_err(unreadable)?,
        entered_at: get(row, 4)?,
        left_at: get(row, 5)?,
        reason: get(row, 6)?,
        cause: get(row, 7)?,
        taken_over_at: get(row, 8)?,
    })
}
