//! Sessions. A batch is one statement, and so one transaction and one round trip.
//!
//! Each statement begins with the `fence` (see [`super::lease`]), and every part that writes depends on it: without a
//! fence no row is written. Batches are sorted, so that two of them lock common rows in the same order. An outbox row's
//! id is drawn while its agent's key in agent_session is locked, so that ids follow the order of commits for each key.
//!
//! A join with a table uses `= any (array[x])` in place of `= x`. With equality the planner might read the whole table
//! by its index, in order. It does so if its statistics say that the table is empty, as they do for a minute after the
//! vacuum of a quiet night, while the morning's agents come (measured: 1.5 s for a batch instead of 7 ms).
use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use rollcall_schema::{JsonObject, KickCause, NodeId, SessionId, Shards, Sid};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    rows::{get, sid, unreadable},
    session_end::{ended, ended_events},
    store::PostgresStore,
};
use crate::{Close, Closed, Lease, Open, Opened, Sessions, StoreError};

/// `takeovers` distinguishes a new row from a taken over one. If a connection asks again, because its first answer was
/// lost, it gets the same answer, and no second event is written. A replaced connection is noted even if it is on this
/// node, because without the answer no part of this node knows of it. `room` is how many sessions the user may have
/// before this one. A session that existed when the database lost commits is not taken over ([`super::doubtful`]).
const OPEN: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), wanted as materialized (
        select fence.id as node_id, i.classroom_id, i.agent_id, i.user_id, i.sid, i.role, i.info, i.resume_id,
            i.traceparent, case
            when (select count(*) from (
                select from agent_session s where s.user_id = any (array[i.user_id]) limit $9
            ) as held) < i.room then true
            else exists (
                select from agent_session s
                where s.classroom_id = any (array[i.classroom_id]) and s.agent_id = i.agent_id
            ) end as allowed, case
            when (select doubtful_through from installation where single) = 0 then false
            else exists (
                select from agent_session s
                where s.classroom_id = any (array[i.classroom_id]) and s.agent_id = i.agent_id and s.sid <> i.sid
                    and s.id <= (select doubtful_through from installation where single)
            ) end as doubtful
        from fence cross join unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $10::text[],
            $11::integer[], $12::text[]) as i(classroom_id, agent_id, user_id, sid, role, room, info, resume_id, traceparent)
    ), entered as (
        insert into agent_session as s (node_id, classroom_id, agent_id, user_id, sid, role, info, resume_id, traceparent)
        select node_id, classroom_id, agent_id, user_id, sid, role, info, resume_id, traceparent
        from wanted where allowed and not doubtful
        on conflict (classroom_id, agent_id) do update set
            previous_node = case when s.sid = excluded.sid then s.previous_node else s.node_id end,
            previous_sid = case when s.sid = excluded.sid then s.previous_sid else s.sid end,
            previous_lesson_id = case when s.sid = excluded.sid then s.previous_lesson_id else s.lesson_id end,
            previous_before = case when s.sid = excluded.sid then s.previous_before else s.lesson_before end,
            changed = s.sid <> excluded.sid and (s.role, s.info) is distinct from (excluded.role, excluded.info),
            state_n = case
                when s.sid <> excluded.sid and (s.role, s.info) is distinct from (excluded.role, excluded.info)
                then next_event_id() else s.state_n
            end,
            node_id = excluded.node_id, sid = excluded.sid, role = excluded.role, info = excluded.info,
            resume_id = excluded.resume_id, traceparent = excluded.traceparent, lesson_id = null, lesson_role = null,
            lesson_before = null, seat = null, joined_at = null, lesson_change = 0, takeovers = s.takeovers + 1,
            taken_over_at = case when s.sid = excluded.sid then s.taken_over_at else clock_timestamp() end
        returning id, classroom_id, agent_id, user_id, takeovers, role, info, state, state_n, changed, traceparent,
            previous_node, previous_sid, previous_lesson_id, previous_before
    ), events as (
        insert into outbox (classroom_id, agent_id, session_id, operation, info, traceparent)
        select classroom_id, agent_id, id, 'entered', info, traceparent from entered where takeovers = 0
    ), updates as (
        insert into outbox (id, classroom_id, agent_id, session_id, operation, state, role, info, traceparent)
        overriding system value
        select state_n, classroom_id, agent_id, id, 'updated', state, role, info, traceparent from entered where changed
    ), noted as (
        insert into takeover (node_id, sid)
        select previous_node, previous_sid from entered where takeovers > 0 and previous_node is not null
    ), stale_fields as (
        insert into stale_field (node_id, lesson_id, user_id, sid, held)
        select e.previous_node, l.id, e.user_id, e.previous_sid, true
        from entered e cross join lateral (values (e.previous_lesson_id), (e.previous_before)) as l(id)
        where e.takeovers > 0 and l.id is not null
    )
    select classroom_id, agent_id, id, previous_node, previous_sid, false from entered
    union all select classroom_id, agent_id, null, null, null, doubtful from wanted where doubtful or not allowed";

/// If the fence holds and there was no session to close, the result is one row without a session.
const CLOSE: &str = concat!(
    "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), gone as (
        delete from agent_session s
        using fence cross join unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::integer[],
            $8::text[]) as i(classroom_id, agent_id, sid, reason, resume_id, cause)
        where s.classroom_id = any (array[i.classroom_id]) and s.agent_id = i.agent_id and s.sid = i.sid
        returning s.id, s.classroom_id, s.agent_id, s.user_id, s.sid, s.lesson_id, s.lesson_before, s.started_at,
            s.taken_over_at, s.traceparent, i.reason, i.cause, i.resume_id
    ), ",
    ended!("$1", ""),
    ", ",
    ended_events!(),
    "
    select g.classroom_id, g.agent_id from fence left join gone g on true"
);

/// Returns the connection that owned a session, and its node.
pub(super) fn owner(node: Option<i64>, text: Option<&str>) -> Result<Option<(NodeId, Sid)>, StoreError> {
    node.zip(text).map(|(node, text)| Ok((NodeId(node), sid(text)?))).transpose()
}

/// Returns the batch in the order in which every batch locks its rows.
pub(super) fn sorted<'a, T, K: Ord>(batch: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    let mut sorted: Vec<&T> = batch.iter().collect();
    sorted.sort_unstable_by_key(|entry| key(entry));
    sorted
}

#[async_trait]
impl Sessions for PostgresStore {
    async fn open(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = sorted(batch, |open| (open.classroom, open.agent.as_str()));
        let classrooms: Vec<Uuid> = sorted.iter().map(|open| open.classroom.0).collect();
        let agents: Vec<&str> = sorted.iter().map(|open| open.agent.as_str()).collect();
        let users: Vec<&str> = sorted.iter().map(|open| open.user.as_str()).collect();
        let sids: Vec<String> = sorted.iter().map(|open| open.sid.to_string()).collect();
        let roles: Vec<&str> = sorted.iter().map(|open| open.role.as_str()).collect();
        let infos: Vec<Option<&str>> = sorted.iter().map(|open| open.info.as_ref().map(JsonObject::as_str)).collect();
        let resume_ids: Vec<Option<i32>> = sorted.iter().map(|open| open.resume_id.map(|id| id.0.get())).collect();
        let traces: Vec<Option<String>> = sorted.iter().map(|open| open.trace.map(|trace| trace.to_string())).collect();
        // The sessions of one user in this batch count each other.
        let mut earlier: HashMap<&str, i64> = HashMap::with_capacity(sorted.len());
        let mut rooms = Vec::with_capacity(sorted.len());
        for open in &sorted {
            let earlier = earlier.entry(open.user.as_str()).or_default();
            rooms.push(i64::from(open.user_sessions) - *earlier);
            *earlier += 1;
        }
        let limit = rooms.iter().copied().max().unwrap_or_default().max(0);
        let Lease { node, epoch } = lease;
        let values: &[&(dyn ToSql + Sync)] = &[
            &node.0,
            &epoch.0,
            &classrooms,
            &agents,
            &users,
            &sids,
            &roles,
            &rooms,
            &limit,
            &infos,
            &resume_ids,
            &traces,
        ];
        let rows = self.pool.rows("open", OPEN, values).await?;
        if rows.len() != batch.len() {
            return Err(StoreError::Fenced);
        }
        self.wake(batch.iter().map(|open| Shards::of(open.classroom)).collect());
        let mut opened = HashMap::with_capacity(rows.len());
        let mut highest = SessionId(0);
        let mut doubtful = HashSet::new();
        for row in &rows {
            let key: (Uuid, &str) = (get(row, 0)?, get(row, 1)?);
            let session: Option<i64> = get(row, 2)?;
            highest = session.map_or(highest, |session| highest.max(SessionId(session)));
            let replaced = owner(get(row, 3)?, get(row, 4)?)?;
            opened.insert(key, session.map(|session| Opened { session: SessionId(session), replaced }));
            if get(row, 5)? {
                doubtful.insert(key);
            }
        }
        self.timeline.saw(highest);
        let again: Vec<Open> =
            batch.iter().filter(|open| doubtful.contains(&(open.classroom.0, open.agent.as_str()))).cloned().collect();
        if !again.is_empty() {
            let anew = self.open_anew(lease, &again).await?;
            opened.extend(again.iter().zip(anew).map(|(open, anew)| ((open.classroom.0, open.agent.as_str()), anew)));
        }
        let answer = |open: &Open| opened.get(&(open.classroom.0, open.agent.as_str())).copied();
        batch.iter().map(|open| answer(open).ok_or_else(|| unreadable("none for an agent"))).collect()
    }

    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = sorted(batch, |close| (close.classroom, close.agent.as_str()));
        let classrooms: Vec<Uuid> = sorted.iter().map(|close| close.classroom.0).collect();
        let agents: Vec<&str> = sorted.iter().map(|close| close.agent.as_str()).collect();
        let sids: Vec<String> = sorted.iter().map(|close| close.sid.to_string()).collect();
        let reasons: Vec<&str> = sorted.iter().map(|close| close.reason.as_str()).collect();
        let Lease { node, epoch } = lease;
        let resume_ids: Vec<Option<i32>> = sorted.iter().map(|close| close.resume_id.map(|id| id.0.get())).collect();
        let causes: Vec<Option<&str>> =
            sorted.iter().map(|close| close.reason.cause().map(KickCause::as_str)).collect();
        let values: &[&(dyn ToSql + Sync)] =
            &[&node.0, &epoch.0, &classrooms, &agents, &sids, &reasons, &resume_ids, &causes];
        let rows = self.pool.rows("close", CLOSE, values).await?;
        if rows.is_empty() {
            return Err(StoreError::Fenced);
        }
        self.wake(batch.iter().map(|close| Shards::of(close.classroom)).collect());
        let mut left: HashSet<(Uuid, &str)> = HashSet::with_capacity(rows.len());
        for row in &rows {
            let classroom: Option<Uuid> = get(row, 0)?;
            let agent: Option<&str> = get(row, 1)?;
            left.extend(classroom.zip(agent));
        }
        let answer = |close: &Close| match left.contains(&(close.classroom.0, close.agent.as_str())) {
            true => Closed::Left,
            false => Closed::NotOwner,
        };
        Ok(batch.iter().map(answer).collect())
    }
}
