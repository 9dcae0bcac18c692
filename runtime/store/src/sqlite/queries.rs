//! Read-only queries of live sessions.
use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, NodeId, SessionId, UserId};
use rusqlite::{Connection, params};

use super::{
    db_thread::failed,
    rows::{rows, sid, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{LessonMembership, Queries, StoreError};

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

    async fn agents(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, AgentId)>, StoreError> {
        self.reader.call("agents", move |connection| agents(connection, classroom, after, max)).await
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
    const SQL: &str = "select s.id, s.sid, s.user_id, s.role, s.lesson_id, l.seats \
        from agent_session s join lesson l on l.id = s.lesson_id \
        where s.node_id = ?1 and s.id > ?2 order by s.id limit ?3";
    rows(connection, SQL, params![node.0, after.0, whole(max)], |row| {
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

fn agents(
    connection: &Connection,
    classroom: ClassroomId,
    after: SessionId,
    max: usize,
) -> Result<Vec<(SessionId, AgentId)>, StoreError> {
    const SQL: &str = "select id, agent_id from agent_session where classroom_id = ?1 and id > ?2 order by id limit ?3";
    rows(connection, SQL, params![classroom.to_string(), after.0, whole(max)], |row| {
        let agent = AgentId::parse(&text(row, 1)?).map_err(unreadable)?;
        Ok((SessionId(row.get(0).map_err(failed)?), agent))
    })
}

fn count_agents(connection: &Connection, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
    const SQL: &str = "select count(*) from agent_session where classroom_id = ?1";
    let mut statement = connection.prepare_cached(SQL).map_err(failed)?;
    let mut one = |classroom: &ClassroomId| statement.query_row([classroom.to_string()], |row| row.get::<_, u32>(0));
    classrooms.iter().map(|classroom| one(classroom).map(u64::from).map_err(failed)).collect()
}
