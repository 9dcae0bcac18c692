//! The state that an agent sets: its row and its event, in one statement.
//!
//! An event's id is drawn while its session's row is locked, so that the ids of one agent's events follow the order of
//! commits. The id is stored in the row as the state's version. By this version the next update finds the event that
//! may still wait, without an index. If the relay is about to delete that event, the event is skipped, because waiting
//! for the relay could be a deadlock.
use std::collections::HashMap;

use async_trait::async_trait;
use rollcall_schema::{JsonObject, SessionId, Shards, StateVersion};

use super::{rows::get, store::PostgresStore};
use crate::{AgentStates, Lease, SetState, StoreError};

/// If the waiting update has role and info, the update that replaces it has them, too.
const SET_STATE: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), owned as materialized (
        select s.id, s.classroom_id, s.agent_id, s.role, s.info, s.state_n, s.traceparent, i.state
        from fence cross join unnest($3::text[], $4::bigint[], $5::text[]) as i(sid, session_id, state)
        join agent_session s on s.id = any (array[i.session_id]) and s.sid = i.sid
        for no key update of s
    ), waiting as materialized (
        select o.shard, o.id, o.session_id, o.role
        from owned w join outbox o
            on o.shard = any (array[((get_byte(uuid_send(w.classroom_id), 3) + get_byte(uuid_send(w.classroom_id), 15)) & 7)::smallint])
            and o.id = any (array[w.state_n])
        for update of o skip locked
    ), folded as (
        delete from outbox o using waiting w where o.shard = any (array[w.shard]) and o.id = any (array[w.id])
    ), events as (
        insert into outbox (classroom_id, agent_id, session_id, operation, state, role, info, traceparent)
        select w.classroom_id, w.agent_id, w.id, 'updated', w.state,
            case when waiting.role is not null then w.role end, case when waiting.role is not null then w.info end,
            w.traceparent
        from owned w left join waiting on waiting.session_id = w.id
        returning id, session_id, shard
    ), written as (
        update agent_session s set state = w.state, state_n = e.id
        from owned w join events e on e.session_id = w.id where s.id = any (array[w.id])
    )
    select e.session_id, e.id, e.shard from fence left join events e on true";

#[async_trait]
impl AgentStates for PostgresStore {
    async fn set_state(&self, lease: Lease, batch: &[SetState]) -> Result<Vec<Option<StateVersion>>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut sorted: Vec<&SetState> = batch.iter().collect();
        sorted.sort_unstable_by_key(|set| set.session);
        let sids: Vec<String> = sorted.iter().map(|set| set.sid.to_string()).collect();
        let sessions: Vec<i64> = sorted.iter().map(|set| set.session.0).collect();
        let states: Vec<Option<&str>> = sorted.iter().map(|set| set.state.as_ref().map(JsonObject::as_str)).collect();
        let Lease { node, epoch } = lease;
        let rows = self.pool.rows("set_state", SET_STATE, &[&node.0, &epoch.0, &sids, &sessions, &states]).await?;
        if rows.is_empty() {
            return Err(StoreError::Fenced);
        }
        let mut versions: HashMap<SessionId, StateVersion> = HashMap::with_capacity(rows.len());
        let mut shards = Vec::with_capacity(rows.len());
        for row in &rows {
            let session: Option<i64> = get(row, 0)?;
            let version: Option<i64> = get(row, 1)?;
            versions.extend(session.map(SessionId).zip(version.map(StateVersion)));
            let shard: Option<i16> = get(row, 2)?;
            shards.extend(shard.and_then(|shard| u8::try_from(shard).ok()).map(Shards::one));
        }
        self.wake(shards.into_iter().collect());
        Ok(batch.iter().map(|set| versions.get(&set.session).copied()).collect())
    }
}
