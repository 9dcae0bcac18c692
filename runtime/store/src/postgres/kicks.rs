//! Ends sessions for operators.
use async_trait::async_trait;
use rollcall_schema::{ClassroomId, LessonId, NodeId, SessionId, Shards};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    rows::{get, parse, sid, unreadable, whole},
    session_end::{ended, ended_events},
    store::PostgresStore,
};
use crate::{Kick, KickTarget, KickedSession, Kicks, Lease, StoreError};

/// Rows are locked in the order in which closes lock theirs. If no session was to end, the result is one row without a
/// session.
macro_rules! kick {
    ($which:literal) => {
        concat!(
            "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), chosen as materialized (
        select s.id from agent_session s where ",
            $which,
            " and exists (select from fence)
        order by s.classroom_id, s.agent_id limit $3 for update
    ), gone as (
        delete from agent_session s where s.id = any (array(select id from chosen))
        returning s.id, s.agent_id, s.classroom_id, s.user_id, s.node_id, s.sid, s.lesson_id, s.lesson_before,
            s.started_at, s.taken_over_at, s.traceparent, 'kicked' as reason, 'kicked' as cause, null::integer as resume_id
    ), kicks as (
        insert into kick (node_id, sid) select node_id, sid from gone
    ), ",
            ended!("g.node_id", "true", ""),
            ", ",
            ended_events!(),
            "
    select g.id, g.agent_id, g.classroom_id, g.node_id, g.sid from fence left join gone g on true"
        )
    };
}

const KICK_SESSION: &str = kick!("s.id = $4");
/// An agent's sessions are found by its user, because there is an index on users.
const KICK_USER: &str =
    kick!("s.user_id = $4 and ($5::text is null or s.agent_id = $5) and ($6::uuid is null or s.classroom_id = $6)");

const FROM_LESSON: &str = "insert into kick (node_id, sid, lesson_id)
    select node_id, sid, lesson_id from agent_session where id = $1 and lesson_id is not null
    returning node_id, sid, lesson_id";

const WAITING: &str = "select sid, lesson_id from kick where node_id = $1";

const ACK: &str = "delete from kick k using unnest($2::text[], $3::text[]) as i(sid, lesson_id)
    where k.node_id = $1 and k.sid = i.sid and k.lesson_id is not distinct from i.lesson_id";

#[async_trait]
impl Kicks for PostgresStore {
    async fn kick(&self, lease: Lease, target: &KickTarget, max: usize) -> Result<Vec<KickedSession>, StoreError> {
        let (Lease { node, epoch }, max) = (lease, whole(max));
        let rows = match target {
            KickTarget::Session(session) => {
                self.pool.rows("kick", KICK_SESSION, &[&node.0, &epoch.0, &max, &session.0]).await?
            }
            KickTarget::Agent(agent, classroom) => {
                let (user, agent) = (agent.user(), Some(agent.as_str()));
                let classroom = classroom.map(|classroom| classroom.0);
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                    [&node.0, &epoch.0, &max, &user.as_str(), &agent, &classroom];
                self.pool.rows("kick", KICK_USER, &parameters).await?
            }
            KickTarget::User(user, classroom) => {
                let (agent, classroom) = (None::<&str>, classroom.map(|classroom| classroom.0));
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                    [&node.0, &epoch.0, &max, &user.as_str(), &agent, &classroom];
                self.pool.rows("kick", KICK_USER, &parameters).await?
            }
        };
        if rows.is_empty() {
            return Err(StoreError::Fenced);
        }
        let kicked: Vec<KickedSession> =
            rows.iter().filter_map(|row| kicked(row).transpose()).collect::<Result<_, _>>()?;
        self.wake(kicked.iter().map(|session| Shards::of(session.classroom)).collect());
        Ok(kicked)
    }

    async fn kick_from_lesson(&self, session: SessionId) -> Result<Option<(NodeId, Kick)>, StoreError> {
        let rows = self.pool.rows("kick", FROM_LESSON, &[&session.0]).await?;
        rows.first().map(|row| Ok((NodeId(get(row, 0)?), kick(get(row, 1)?, get(row, 2)?)?))).transpose()
    }

    async fn kicks(&self, node: NodeId) -> Result<Vec<Kick>, StoreError> {
        let rows = self.heartbeat.rows("kicks", WAITING, &[&node.0]).await?;
        rows.iter().map(|row| kick(get(row, 0)?, get(row, 1)?)).collect()
    }

    async fn ack_kicks(&self, node: NodeId, done: &[Kick]) -> Result<(), StoreError> {
        let sids: Vec<String> = done.iter().map(|kick| kick.sid.to_string()).collect();
        let lessons: Vec<Option<&str>> = done.iter().map(|kick| kick.lesson.as_ref().map(LessonId::as_str)).collect();
        self.heartbeat.rows("kicked", ACK, &[&node.0, &sids, &lessons]).await.map(drop)
    }
}

pub(super) fn kick(text: &str, lesson: Option<&str>) -> Result<Kick, StoreError> {
    Ok(Kick { sid: sid(text)?, lesson: lesson.map(LessonId::parse).transpose().map_err(unreadable)? })
}

fn kicked(row: &Row) -> Result<Option<KickedSession>, StoreError> {
    let Some(session) = get::<Option<i64>>(row, 0)? else { return Ok(None) };
    Ok(Some(KickedSession {
        session: SessionId(session),
        agent: parse(row, 1)?,
        classroom: ClassroomId(get::<Uuid>(row, 2)?),
        node: NodeId(get(row, 3)?),
        sid: sid(get(row, 4)?)?,
    }))
}
