//! Read-only queries of live sessions.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{
    AgentId, ClassroomId, JsonObject, LessonId, NodeId, ResumeId, RosterAgent, Seat, SessionId, StateVersion, UserId,
};
use rusqlite::{Connection, Row, params};

use super::{
    db_thread::failed,
    rows::{rows, sid, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{LessonMembership, Queries, ResumableSession, RosterQuery, StoreError};

#[async_trait]
impl Queries for SqliteStore {
    async fn lesson_memberships(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<LessonMembership>, StoreError> {
        self.reader.call("placed", move |connection| lesson_memberships(connection, node, after, max)).await
    }

    async fn lesson_classroom(&self, lesson: &LessonId) -> Result<Option<ClassroomId>, StoreError> {
        let lesson = lesson.clone();
        self.reader.call("lesson_classroom", move |connection| lesson_classroom(connection, &lesson)).await
    }

    async fn agents(&self, queries: &[RosterQuery], max: usize) -> Result<Vec<Vec<RosterAgent>>, StoreError> {
        let queries = queries.to_vec();
        let read = move |connection: &Connection| queries.iter().map(|query| agents(connection, query, max)).collect();
        self.reader.call("agents", read).await
    }

    async fn resumable(
        &self,
        agent: &AgentId,
        id: ResumeId,
        within: Duration,
    ) -> Result<Option<ResumableSession>, StoreError> {
        let agent = agent.clone();
        self.reader.call("resumable", move |connection| resumable(connection, &agent, id, within)).await
    }

    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
        let classrooms = classrooms.to_vec();
        self.reader.call("count", move |connection| count_agents(connection, &classrooms)).await
    }
}

fn lesson_memberships(
    connection: &Connection,
    node: NodeId,
    after: SessionId,
    max: usize,
) -> Result<Vec<LessonMembership>, StoreError> {
    const SQL: &str = "select s.id, s.sid, s.user_id, coalesce(s.lesson_role, s.role), s.lesson_id, l.seats, not exists ( \
            select 1 from agent_session o where o.user_id = s.user_id and o.lesson_id = s.lesson_id \
                and (o.lesson_role = 'teacher') = (s.lesson_role = 'teacher') and (o.joined_at, o.id) > (s.joined_at, s.id) \
        ) from agent_session s join lesson l on l.id = s.lesson_id \
        where s.node_id = ?1 and s.id > ?2 order by s.id limit ?3";
    rows(connection, SQL, params![node.0, after.0, whole(max)], |row| {
        Ok(LessonMembership {
            session: SessionId(row.get(0).map_err(failed)?),
            sid: sid(&text(row, 1)?)?,
            user: UserId::parse(&text(row, 2)?).map_err(unreadable)?,
            role: text(row, 3)?.parse().map_err(unreadable)?,
            lesson: LessonId::parse(&text(row, 4)?).map_err(unreadable)?,
            seats: row.get(5).map_err(failed)?,
            holds_field: row.get(6).map_err(failed)?,
        })
    })
}

fn lesson_classroom(connection: &Connection, lesson: &LessonId) -> Result<Option<ClassroomId>, StoreError> {
    const SQL: &str = "select classroom_id from lesson where id = ?1";
    let found =
        rows(connection, SQL, params![lesson.as_str()], |row| ClassroomId::parse(&text(row, 0)?).map_err(unreadable))?;
    Ok(found.into_iter().next())
}

fn agents(connection: &Connection, query: &RosterQuery, max: usize) -> Result<Vec<RosterAgent>, StoreError> {
    const SQL: &str = "select id, agent_id, role, lesson_id, seat, state_n, info, state from agent_session \
        where classroom_id = ?1 and id > ?2 and (?3 is null or lesson_id = ?3) order by id limit ?4";
    let lesson = query.lesson.as_ref().map(LessonId::as_str);
    rows(connection, SQL, params![query.classroom.to_string(), query.after.0, lesson, whole(max)], agent)
}

fn agent(row: &Row<'_>) -> Result<RosterAgent, StoreError> {
    let object = |column| {
        let text: Option<String> = row.get(column).map_err(failed)?;
        text.as_deref().map(JsonObject::parse).transpose().map_err(unreadable)
    };
    let lesson: Option<String> = row.get(3).map_err(failed)?;
    let seat: Option<u32> = row.get(4).map_err(failed)?;
    let version: Option<i64> = row.get(5).map_err(failed)?;
    Ok(RosterAgent {
        session_id: SessionId(row.get(0).map_err(failed)?),
        agent_id: AgentId::parse(&text(row, 1)?).map_err(unreadable)?,
        role: text(row, 2)?.parse().map_err(unreadable)?,
        lesson_id: lesson.as_deref().map(LessonId::parse).transpose().map_err(unreadable)?,
        seat: seat.map(Seat),
        state_n: StateVersion(version.unwrap_or(0)),
        info: object(6)?,
        state: object(7)?,
    })
}

fn resumable(
    connection: &Connection,
    agent: &AgentId,
    id: ResumeId,
    within: Duration,
) -> Result<Option<ResumableSession>, StoreError> {
    // The condition is that of Postgres. In SQLite, the other columns of a group are those of the row with the maximum.
    const SQL: &str = "select classroom_id, lesson_id from ( \
            select classroom_id, lesson_id, resume_id, max(at || printf('%020d', id)), at from ( \
                select id, classroom_id, lesson_id, resume_id, '9999' as at from agent_session \
                where user_id = ?1 and agent_id = ?2 \
                union all \
                select id, classroom_id, lesson_id, resume_id, ended_at from ( \
                    select * from agent_session_history where user_id = ?1 order by id desc limit 64 \
                ) where agent_id = ?2 \
            ) group by classroom_id \
        ) where resume_id = ?3 and at > strftime('%Y-%m-%d %H:%M:%f', 'now', ?4) order by at desc limit 1";
    let ago = format!("-{:.3} seconds", within.as_secs_f64());
    let found = rows(connection, SQL, params![agent.user().as_str(), agent.as_str(), id.0.get(), ago], |row| {
        let lesson: Option<String> = row.get(1).map_err(failed)?;
        Ok(ResumableSession {
            classroom: ClassroomId::parse(&text(row, 0)?).map_err(unreadable)?,
            lesson: lesson.as_deref().map(LessonId::parse).transpose().map_err(unreadable)?,
        })
    })?;
    Ok(found.into_iter().next())
}

fn count_agents(connection: &Connection, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
    const SQL: &str = "select count(*) from agent_session where classroom_id = ?1";
    let mut statement = connection.prepare_cached(SQL).map_err(failed)?;
    let mut one = |classroom: &ClassroomId| statement.query_row([classroom.to_string()], |row| row.get::<_, u32>(0));
    classrooms.iter().map(|classroom| one(classroom).map(u64::from).map_err(failed)).collect()
}
