//! Compares the sessions that a node remembers with the database, and reads the rows that the database has for the
//! node.
use std::collections::HashMap;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LeftReason, LessonId, NodeId, SessionId, Shards};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    restored,
    rows::{get, sid, unreadable, whole},
    store::PostgresStore,
};
use crate::{Close, Lease, Recovery, Remembered, Restored, Standing, StoreError};

/// A takeover that the database has kept is in `takeover` until the node's heartbeat has reported it, and a session
/// that an operator has ended is in `kick`. Ids were raised when commits were lost, so an agent's session with a higher
/// id is later, and one with a lower id is not. If a connection does not own the session in its lesson, its field in
/// Redis is stale: no row names the field, so no end of a session will remove it.
///
/// A state that was published may be among the lost commits, so the row's state is published once more, with a version
/// above all others.
const VERIFY: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), standing as materialized (
        select i.*,
            (select s.sid from agent_session s where s.id = any (array[i.id])) as owner,
            exists (
                select from agent_session s
                where s.id = any (array[i.id]) and s.sid = i.sid and s.lesson_id is not distinct from i.lesson_id
            ) as owned,
            exists (select from agent_session_history h where h.id = any (array[i.id])) as ended,
            exists (
                select from agent_session s
                where s.classroom_id = any (array[i.classroom_id]) and s.agent_id = i.agent_id and s.id > i.id
            ) or exists (select from takeover t where t.node_id = $1 and t.sid = i.sid) as replaced,
            exists (select from kick k where k.node_id = $1 and k.sid = i.sid and k.lesson_id is null) as kicked
        from fence cross join unnest(
            $3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::float8[], $10::text[], $11::bool[]
        ) as i(id, classroom_id, agent_id, user_id, sid, lesson_id, age, reason, sets_state)
    ), history as (
        insert into agent_session_history (id, agent_id, classroom_id, user_id, lesson_id, lifetime, reason)
        select id, agent_id, classroom_id, user_id, lesson_id,
            tstzrange(clock_timestamp() - make_interval(secs => age), clock_timestamp() + interval '1 microsecond'),
            reason
        from standing where owner is null and not ended and not kicked
        on conflict (id) do nothing
        returning id, agent_id, classroom_id, reason
    ), events as (
        insert into outbox (classroom_id, agent_id, session_id, operation, reason)
        select classroom_id, agent_id, id, 'left', reason from history
    ), owned as materialized (
        select s.id, s.classroom_id, s.agent_id, s.role, s.info, s.state
        from standing i join agent_session s on s.id = any (array[i.id]) and s.sid = i.sid
        where s.state_n is not null or i.sets_state
        for no key update of s
    ), told as (
        insert into outbox (classroom_id, agent_id, session_id, operation, state, role, info)
        select classroom_id, agent_id, id, 'updated', state, role, info from owned
        returning id, session_id
    ), noted as (
        update agent_session s set state_n = t.id from told t where s.id = any (array[t.session_id])
    ), stale_fields as (
        insert into stale_field (node_id, lesson_id, user_id, sid)
        select $1, lesson_id, user_id, sid from standing where not owned and lesson_id is not null
    )
    select id, owned, kicked, replaced, owner is null and not ended from standing";

const OWNED: &str = "select id, classroom_id, agent_id, sid from agent_session \
    where node_id = $1 and id > $2 order by id limit $3";

#[async_trait]
impl Recovery for PostgresStore {
    fn incarnation(&self) -> watch::Receiver<Option<Uuid>> {
        self.timeline.known()
    }

    async fn prepare_restored(&self) -> Result<Restored, StoreError> {
        restored::prepare(&self.connector).await
    }

    async fn verify(&self, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut sorted: Vec<&Remembered> = batch.iter().collect();
        sorted.sort_unstable_by_key(|one| one.session);
        let ids: Vec<i64> = sorted.iter().map(|one| one.session.0).collect();
        let classrooms: Vec<Uuid> = sorted.iter().map(|one| one.classroom.0).collect();
        let agents: Vec<&str> = sorted.iter().map(|one| one.agent.as_str()).collect();
        let users: Vec<&str> = sorted.iter().map(|one| one.user.as_str()).collect();
        let sids: Vec<String> = sorted.iter().map(|one| one.sid.to_string()).collect();
        let lessons: Vec<Option<&str>> = sorted.iter().map(|one| one.lesson.as_ref().map(LessonId::as_str)).collect();
        let ages: Vec<f64> = sorted.iter().map(|one| one.age.as_secs_f64()).collect();
        let reasons: Vec<&str> = sorted.iter().map(|one| one.reason.as_str()).collect();
        let set: Vec<bool> = sorted.iter().map(|one| one.sets_state).collect();
        let Lease { node, epoch } = lease;
        let rows = self
            .pool
            .rows(
                "verify",
                VERIFY,
                &[&node.0, &epoch.0, &ids, &classrooms, &agents, &users, &sids, &lessons, &ages, &reasons, &set],
            )
            .await?;
        if rows.is_empty() {
            return Err(StoreError::Fenced);
        }
        let mut standings = HashMap::with_capacity(rows.len());
        for row in &rows {
            let id = SessionId(get(row, 0)?);
            let [owned, kicked, replaced, lost] = [1, 2, 3, 4].map(|column| get::<bool>(row, column));
            let standing = match (owned?, kicked?, replaced?) {
                (true, _, _) => Standing::Owned,
                (false, true, _) => Standing::Kicked,
                (false, false, true) => Standing::Replaced,
                (false, false, false) if lost? => Standing::Lost,
                (false, false, false) => Standing::NotOwned,
            };
            standings.insert(id, standing);
        }
        self.wake(batch.iter().map(|one| Shards::of(one.classroom)).collect());
        batch.iter().map(|one| standings.get(&one.session).copied().ok_or_else(|| unreadable("none"))).collect()
    }

    async fn owned_sessions(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, Close)>, StoreError> {
        let rows = self.pool.rows("owned", OWNED, &[&node.0, &after.0, &whole(max)]).await?;
        let close = |row: &tokio_postgres::Row| {
            let close = Close {
                classroom: ClassroomId(get(row, 1)?),
                agent: AgentId::parse(get(row, 2)?).map_err(unreadable)?,
                sid: sid(get(row, 3)?)?,
                reason: LeftReason::NodeLost,
                resume_id: None,
            };
            Ok((SessionId(get(row, 0)?), close))
        };
        rows.iter().map(close).collect()
    }
}
