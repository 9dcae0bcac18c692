//! Read-only queries of live sessions.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{
    AgentId, ClassroomId, JsonObject, LessonId, NodeId, ResumeId, RosterAgent, Seat, SessionId, StateVersion, UserId,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    rows::{get, parse, sid, unreadable, unsigned, whole},
    store::PostgresStore,
};
use crate::{LessonMembership, Queries, ResumableSession, RosterQuery, StoreError};

/// Of the sessions of a user in a lesson, only the session that joined last in its role is returned, because the keys
/// that these sessions share name its connection.
const MEMBERSHIPS: &str = "select s.id, s.sid, s.user_id, coalesce(s.lesson_role, s.role), s.lesson_id, l.seats,
        not exists (
            select from agent_session o
            where o.user_id = any (array[s.user_id]) and o.lesson_id = s.lesson_id
                and (o.lesson_role = 'teacher') = (s.lesson_role = 'teacher') and (o.joined_at, o.id) > (s.joined_at, s.id)
        )
    from agent_session s join lesson l on l.id = s.lesson_id
    where s.node_id = $1 and s.id > $2 order by s.id limit $3";

/// The part is materialized, so that the index on ids, which has all classrooms, is not used.
const AGENTS: &str = "select i.place, a.*
    from unnest($1::uuid[], $2::text[], $3::bigint[])
        with ordinality as i(classroom_id, lesson_id, after, place)
    cross join lateral (
        with here as materialized (
            select s.id, s.agent_id, s.role, s.lesson_id, s.seat, s.state_n, s.info, s.state
            from agent_session s where s.classroom_id = any (array[i.classroom_id])
        )
        select * from here where here.id > i.after and (i.lesson_id is null or here.lesson_id = i.lesson_id)
        order by here.id limit $4
    ) as a";

const CLASSROOM: &str = "select classroom_id from lesson where id = $1";

const COUNT: &str = "select (select count(*) from agent_session s where s.classroom_id = i.classroom_id)
    from unnest($1::uuid[]) with ordinality as i(classroom_id, place) order by place";

/// The part `live` is materialized, so that the index on ids, which has all classrooms, is not used. Only the agent's
/// latest session in a classroom counts, because the client may have sent DISCONNECT since an earlier one.
const RESUMABLE: &str = "with live as materialized (
        select s.id, s.classroom_id, s.lesson_id, s.agent_id, s.resume_id
        from agent_session s where s.user_id = any (array[$1])
    ), ended as materialized (
        select h.id, h.classroom_id, h.lesson_id, h.agent_id, h.resume_id, upper(h.lifetime) as at
        from agent_session_history h where h.user_id = any (array[$1]) order by h.id desc limit 64
    ), latest as (
        select distinct on (classroom_id) classroom_id, lesson_id, resume_id, at from (
            select id, classroom_id, lesson_id, resume_id, 'infinity'::timestamptz as at from live where agent_id = $2
            union all
            select id, classroom_id, lesson_id, resume_id, at from ended where agent_id = $2
        ) as of_agent order by classroom_id, at desc, id desc
    )
    select classroom_id, lesson_id from latest
    where resume_id = $3 and at > clock_timestamp() - $4 * interval '1 millisecond'
    order by at desc limit 1";

fn membership(row: &Row) -> Result<LessonMembership, StoreError> {
    Ok(LessonMembership {
        session: SessionId(get(row, 0)?),
        sid: sid(get(row, 1)?)?,
        user: UserId::parse(get(row, 2)?).map_err(unreadable)?,
        role: parse(row, 3)?,
        lesson: LessonId::parse(get(row, 4)?).map_err(unreadable)?,
        seats: unsigned(get::<i32>(row, 5)?.into())?,
        holds_field: get(row, 6)?,
    })
}

fn agent(row: &Row) -> Result<RosterAgent, StoreError> {
    let seat: Option<i32> = get(row, 5)?;
    let object = |column| {
        let text: Option<&str> = get(row, column)?;
        text.map(JsonObject::parse).transpose().map_err(unreadable)
    };
    let lesson: Option<&str> = get(row, 4)?;
    Ok(RosterAgent {
        session_id: SessionId(get(row, 1)?),
        agent_id: parse(row, 2)?,
        role: parse(row, 3)?,
        lesson_id: lesson.map(LessonId::parse).transpose().map_err(unreadable)?,
        seat: seat.map(|seat| unsigned(seat.into())).transpose()?.map(Seat),
        state_n: StateVersion(get::<Option<i64>>(row, 6)?.unwrap_or(0)),
        info: object(7)?,
        state: object(8)?,
    })
}

#[async_trait]
impl Queries for PostgresStore {
    async fn lesson_memberships(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LessonMembership>, StoreError> {
        let rows = self.pool.rows("placed", MEMBERSHIPS, &[&node.0, &after.0, &whole(max)]).await?;
        rows.iter().map(membership).collect()
    }

    async fn lesson_classroom(&self, lesson: &LessonId) -> Result<Option<ClassroomId>, StoreError> {
        let rows = self.pool.rows("lesson_classroom", CLASSROOM, &[&lesson.as_str()]).await?;
        rows.first().map(|row| get(row, 0).map(ClassroomId)).transpose()
    }

    async fn agents(&self, queries: &[RosterQuery], max: usize) -> Result<Vec<Vec<RosterAgent>>, StoreError> {
        let classrooms: Vec<Uuid> = queries.iter().map(|query| query.classroom.0).collect();
        let lessons: Vec<Option<&str>> =
            queries.iter().map(|query| query.lesson.as_ref().map(LessonId::as_str)).collect();
        let after: Vec<i64> = queries.iter().map(|query| query.after.0).collect();
        let rows = self.pool.rows("agents", AGENTS, &[&classrooms, &lessons, &after, &whole(max)]).await?;
        let mut answers = vec![Vec::new(); queries.len()];
        for row in &rows {
            let place: i64 = get(row, 0)?;
            let place: usize = unsigned(place - 1)?;
            answers.get_mut(place).ok_or_else(|| unreadable("no such query"))?.push(agent(row)?);
        }
        Ok(answers)
    }

    async fn resumable(
        &self,
        agent: &AgentId,
        id: ResumeId,
        within: Duration,
    ) -> Result<Option<ResumableSession>, StoreError> {
        let (user, within) = (agent.user(), within.as_millis() as f64);
        let rows =
            self.pool.rows("resumable", RESUMABLE, &[&user.as_str(), &agent.as_str(), &id.0.get(), &within]).await?;
        let found = |row: &Row| {
            let lesson: Option<&str> = get(row, 1)?;
            let lesson = lesson.map(LessonId::parse).transpose().map_err(unreadable)?;
            Ok(ResumableSession { classroom: ClassroomId(get(row, 0)?), lesson })
        };
        rows.first().map(found).transpose()
    }

    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
        let classrooms: Vec<Uuid> = classrooms.iter().map(|classroom| classroom.0).collect();
        let rows = self.pool.rows("count", COUNT, &[&classrooms]).await?;
        rows.iter().map(|row| unsigned(get(row, 0)?)).collect()
    }
}
