//! Sessions that existed when the database lost commits (PROTOCOL 5).
//!
//! Invariant: no such session is taken over. Its end may be among the lost commits, although its left was published,
//! and clients that got the left would not show the session again. So the session ends, and its agent's next connection
//! gets a new one.
use std::collections::HashMap;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    rows::get,
    session_end::{ended, ended_events},
    sessions::{owner, sorted},
    store::PostgresStore,
};
use crate::{Lease, Open, Opened, Sessions, StoreError};

/// The connection that owned the session is closed as in a takeover, and its fields wait for its end.
const END_DOUBTFUL: &str = concat!(
    "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), gone as (
        delete from agent_session s
        using fence cross join unnest($3::uuid[], $4::text[], $5::text[]) as i(classroom_id, agent_id, sid)
        where s.classroom_id = any (array[i.classroom_id]) and s.agent_id = i.agent_id and s.sid <> i.sid
            and s.id <= (select doubtful_through from installation where single)
        returning s.id, s.classroom_id, s.agent_id, s.user_id, s.sid, s.lesson_id, s.lesson_before, s.started_at,
            s.taken_over_at, s.traceparent, s.node_id, 'node_lost' as reason, null as cause, s.resume_id
    ), noted as (
        insert into takeover (node_id, sid) select node_id, sid from gone
    ), ",
    ended!("g.node_id", "true", "on conflict (id) do nothing"),
    ", ",
    ended_events!(),
    "
    select classroom_id, agent_id, node_id, sid from gone"
);

impl PostgresStore {
    /// Opens new sessions in place of those that existed when the database lost commits.
    pub(super) async fn open_anew(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError> {
        let sorted = sorted(batch, |open| (open.classroom, open.agent.as_str()));
        let classrooms: Vec<Uuid> = sorted.iter().map(|open| open.classroom.0).collect();
        let agents: Vec<&str> = sorted.iter().map(|open| open.agent.as_str()).collect();
        let sids: Vec<String> = sorted.iter().map(|open| open.sid.to_string()).collect();
        let Lease { node, epoch } = lease;
        let values: &[&(dyn ToSql + Sync)] = &[&node.0, &epoch.0, &classrooms, &agents, &sids];
        let ended = self.pool.rows("open", END_DOUBTFUL, values).await?;
        let mut replaced = HashMap::with_capacity(ended.len());
        for row in &ended {
            let key: (Uuid, &str) = (get(row, 0)?, get(row, 1)?);
            replaced.insert(key, owner(get(row, 2)?, get(row, 3)?)?);
        }
        let mut opened = self.open(lease, batch).await?;
        for (open, opened) in batch.iter().zip(&mut opened) {
            let before = replaced.get(&(open.classroom.0, open.agent.as_str())).copied().flatten();
            if let Some(opened) = opened {
                opened.replaced = opened.replaced.or(before);
            }
        }
        Ok(opened)
    }
}
