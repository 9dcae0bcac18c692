//! Read-only queries of live sessions.
use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, NodeId, SessionId, UserId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    rows::{get, parse, sid, unreadable, unsigned, whole},
    store::PostgresStore,
};
use crate::{LessonMembership, Queries, StoreError};

const MEMBERSHIPS: &str = "select s.id, s.sid, s.user_id, s.role, s.lesson_id, l.seats
    from agent_session s join lesson l on l.id = s.lesson_id
    where s.node_id = $1 and s.id > $2 order by s.id limit $3";

/// Materialized, so that the ids of all other classrooms are left alone.
const AGENTS: &str = "with here as materialized (
        select id, agent_id from agent_session where classroom_id = $1
    )
    select id, agent_id from here where id > $2 order by id limit $3";

const COUNT: &str = "select (select count(*) from agent_session s where s.classroom_id = i.classroom_id)
    from unnest($1::uuid[]) with ordinality as i(classroom_id, place) order by place";

fn membership(row: &Row) -> Result<LessonMembership, StoreError> {
    Ok(LessonMembership {
        session: SessionId(get(row, 0)?),
        sid: sid(get(row, 1)?)?,
        user: UserId::parse(get(row, 2)?).map_err(unreadable)?,
        role: parse(row, 3)?,
        lesson: LessonId::parse(get(row, 4)?).map_err(unreadable)?,
        seats: unsigned(get::<i32>(row, 5)?.into())?,
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

    async fn agents(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, AgentId)>, StoreError> {
        let rows = self.pool.rows("agents", AGENTS, &[&classroom.0, &after.0, &whole(max)]).await?;
        rows.iter().map(|row| Ok((SessionId(get(row, 0)?), parse(row, 1)?))).collect()
    }

    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
        let classrooms: Vec<Uuid> = classrooms.iter().map(|classroom| classroom.0).collect();
        let rows = self.pool.rows("count", COUNT, &[&classrooms]).await?;
        rows.iter().map(|row| unsigned(get(row, 0)?)).collect()
    }
}
