//! What is asked without writing, and how rows become values.
use std::str::FromStr;

use rollcall_schema::{AgentId, ClassroomId, IdError, LessonId, NodeId, SessionId, Sid, UserId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{PostgresStore, pool::unreadable};
use crate::{LessonMembership, StoreError};

const PLACED: &str = "select s.id, s.sid, s.user_id, s.role, s.lesson_id, l.seats
    from agent_session s join lesson l on l.id = s.lesson_id
    where s.node_id = $1 and s.id > $2 order by s.id limit $3";

/// Materialized, so that the ids of all other classrooms are left alone.
const AGENTS: &str = "with here as materialized (
        select id, agent_id from agent_session where classroom_id = $1
    )
    select id, agent_id from here where id > $2 order by id limit $3";

const COUNT: &str = "select (select count(*) from agent_session s where s.classroom_id = i.classroom_id)
    from unnest($1::uuid[]) with ordinality as i(classroom_id, place) order by place";

/// Reads what [`Sid`]'s display wrote.
pub(super) fn sid(text: &str) -> Result<Sid, StoreError> {
    Sid::parse(text).map_err(unreadable)
}

fn parse<T: FromStr<Err = IdError>>(row: &Row, column: usize) -> Result<T, StoreError> {
    row.try_get::<_, &str>(column).map_err(unreadable)?.parse().map_err(unreadable)
}

fn number(row: &Row, column: usize) -> Result<u32, StoreError> {
    u32::try_from(row.try_get::<_, i32>(column).map_err(unreadable)?).map_err(unreadable)
}

/// Reads id, sid, user, role, lesson and its seats.
fn placed(row: &Row) -> Result<LessonMembership, StoreError> {
    Ok(LessonMembership {
        session: SessionId(row.try_get(0).map_err(unreadable)?),
        sid: sid(row.try_get(1).map_err(unreadable)?)?,
        user: UserId::parse(row.try_get(2).map_err(unreadable)?).map_err(unreadable)?,
        role: parse(row, 3)?,
        lesson: LessonId::parse(row.try_get(4).map_err(unreadable)?).map_err(unreadable)?,
        seats: number(row, 5)?,
    })
}

fn whole(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

impl PostgresStore {
    pub(super) async fn identity(&self) -> Result<Uuid, StoreError> {
        let rows = self.pool.rows("installation", "select id from installation", &[]).await?;
        rows.first().ok_or_else(|| unreadable("none"))?.try_get(0).map_err(unreadable)
    }

    pub(super) async fn has_no_lesson(&self) -> Result<bool, StoreError> {
        let rows = self.pool.rows("is_empty", "select not exists (select from lesson)", &[]).await?;
        rows.first().ok_or_else(|| unreadable("none"))?.try_get(0).map_err(unreadable)
    }

    pub(super) async fn in_lessons(
        &self,
        node: NodeId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<LessonMembership>, StoreError> {
        let rows = self.pool.rows("placed", PLACED, &[&node.0, &after.0, &whole(most)]).await?;
        rows.iter().map(placed).collect()
    }

    pub(super) async fn page(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<(SessionId, AgentId)>, StoreError> {
        let rows = self.pool.rows("agents", AGENTS, &[&classroom.0, &after.0, &whole(most)]).await?;
        rows.iter().map(|row| Ok((SessionId(row.try_get(0).map_err(unreadable)?), parse(row, 1)?))).collect()
    }

    pub(super) async fn sizes(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
        let classrooms: Vec<Uuid> = classrooms.iter().map(|classroom| classroom.0).collect();
        let rows = self.pool.rows("count", COUNT, &[&classrooms]).await?;
        let size = |row: &Row| u64::try_from(row.try_get::<_, i64>(0).map_err(unreadable)?).map_err(unreadable);
        rows.iter().map(size).collect()
    }
}
