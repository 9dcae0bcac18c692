//! Stale fields, which wait until Redis has removed them, and removals, which are kept as long as a failover of Redis
//! may undo them.
//!
//! Their rows are written by the statements that end or take over sessions ([`super::sessions`], [`super::lease`]).
use async_trait::async_trait;
use rollcall_schema::{LessonId, NodeId, Sid, Successors, UserId};
use tokio_postgres::Row;

use super::{
    rows::{get, only, sid, unreadable, unsigned, whole},
    store::PostgresStore,
};
use crate::{KeyField, StaleField, StaleFields, StoreError, stale_fields::REPEATED_MINUTES};

const ADD: &str = "with released as (
        update stale_field set held = false where held and sid = any ($5)
    )
    insert into stale_field (node_id, lesson_id, user_id, sid)
    select $1, lesson_id, user_id, sid from unnest($2::text[], $3::text[], $4::text[]) as i(lesson_id, user_id, sid)";

/// A connection that is still in the lesson is its own successor, so its field stays.
const READ: &str = "select l.id, l.lesson_id, l.user_id, l.sid, latest.teacher, latest.student
    from stale_field l cross join lateral (
        select
            (array_agg(s.sid order by s.joined_at desc, s.id desc) filter (where s.lesson_role = 'teacher'))[1] as teacher,
            (array_agg(s.sid order by s.joined_at desc, s.id desc) filter (where s.lesson_role <> 'teacher'))[1] as student
        from agent_session s where s.user_id = l.user_id and s.lesson_id = l.lesson_id
    ) as latest
    where l.node_id = $1 and not l.held order by l.id limit $2";

/// Adopts the fields of nodes without a row: a database that was put back, or that lost its last commits, does not know
/// when they ended. The query steps from one node to the next in the index.
const ADOPT: &str = "with recursive owner as (
        (select node_id from stale_field order by node_id limit 1)
        union all
        select (select l.node_id from stale_field l where l.node_id > owner.node_id order by l.node_id limit 1)
        from owner where owner.node_id is not null
    ), orphans as materialized (
        select l.id from owner cross join lateral (
            select id from stale_field where node_id = owner.node_id order by id limit $2 for update skip locked
        ) as l
        where owner.node_id is not null and not exists (select from node where node.id = owner.node_id)
    ), adopted as (
        update stale_field set node_id = $1, held = false where id = any (array(select id from orphans)) returning id
    )
    select count(*) from adopted";

/// If a successor has left before this statement, its own removal may have been carried out before the field was set to
/// it. So a new stale field is written for it. A successor that leaves later finds itself in the field.
const FORGET: &str = "with forgotten as (
        delete from stale_field where id = any ($2) returning lesson_id, user_id, sid
    ), kept as (
        insert into removal (node_id, lesson_id, user_id, sid)
        select $1, lesson_id, user_id, sid from forgotten where $6::bool
    )
    insert into stale_field (node_id, lesson_id, user_id, sid)
    select $1, i.lesson_id, i.user_id, i.successor
    from unnest($3::text[], $4::text[], $5::text[]) as i(lesson_id, user_id, successor)
    where not exists (
        select from agent_session s where s.user_id = i.user_id and s.lesson_id = i.lesson_id and s.sid = i.successor
    )";

const HELD: &str = "select id, sid from stale_field where node_id = $1 and held and id > $2 order by id limit $3";

/// If a node repeats a dead node's removals, they become its own, so they are repeated once more if they are lost.
const REPEAT: &str = "with again as (
        select ctid from removal
        where minute >= extract(epoch from clock_timestamp())::bigint / 60 - $2
            and ($4 and node_id = $1 or node_id <> all (array(select id from node where not taken)))
        order by minute limit $3 for update skip locked
    ), gone as (
        delete from removal where ctid = any (array(select ctid from again)) returning lesson_id, user_id, sid
    ), added as (
        insert into stale_field (node_id, lesson_id, user_id, sid) select $1, lesson_id, user_id, sid from gone
    )
    select count(*) from gone";

/// A minute is finished once no removal of it is found. If another node deletes some at this moment, that node deletes
/// the rest, too.
const EXPIRE: &str = "with bound as materialized (
        select extract(epoch from clock_timestamp())::bigint / 60 - $2 as minute
    ), old as (
        select ctid from removal where minute >= $1 and minute < (select minute from bound)
        order by minute limit $3 for update skip locked
    ), gone as (
        delete from removal where ctid = any (array(select ctid from old)) returning minute
    )
    select count(*), max(gone.minute), (select minute from bound) from gone";

#[async_trait]
impl StaleFields for PostgresStore {
    async fn add_stale_fields(&self, node: NodeId, fields: &[KeyField], ended: &[Sid]) -> Result<(), StoreError> {
        let lessons: Vec<&str> = fields.iter().map(|field| field.lesson.as_str()).collect();
        let users: Vec<&str> = fields.iter().map(|field| field.user.as_str()).collect();
        let sids: Vec<String> = fields.iter().map(|field| field.sid.to_string()).collect();
        let ended: Vec<String> = ended.iter().map(Sid::to_string).collect();
        self.pool.rows("leave", ADD, &[&node.0, &lessons, &users, &sids, &ended]).await.map(drop)
    }

    async fn stale_fields(&self, node: NodeId, max: usize) -> Result<Vec<(i64, StaleField)>, StoreError> {
        let max = whole(max);
        let rows = self.pool.rows("stale_fields", READ, &[&node.0, &max]).await?;
        rows.iter().map(stale_field).collect()
    }

    async fn forget_stale_fields(
        &self,
        node: NodeId,
        done: &[(i64, StaleField)],
        keep: bool,
    ) -> Result<(), StoreError> {
        let ids: Vec<i64> = done.iter().map(|(id, _)| *id).collect();
        let handed: Vec<_> =
            done.iter().flat_map(|(_, stale)| stale.successors.all().map(|sid| (&stale.field, sid))).collect();
        let lessons: Vec<&str> = handed.iter().map(|(field, _)| field.lesson.as_str()).collect();
        let users: Vec<&str> = handed.iter().map(|(field, _)| field.user.as_str()).collect();
        let successors: Vec<String> = handed.iter().map(|(_, successor)| successor.to_string()).collect();
        self.pool.rows("forget", FORGET, &[&node.0, &ids, &lessons, &users, &successors, &keep]).await.map(drop)
    }

    async fn held_stale_fields(&self, node: NodeId, after: i64, max: usize) -> Result<Vec<(i64, Sid)>, StoreError> {
        let max = whole(max);
        let rows = self.pool.rows("held", HELD, &[&node.0, &after, &max]).await?;
        let held = |row: &Row| Ok((get(row, 0)?, sid(get(row, 1)?)?));
        rows.iter().map(held).collect()
    }

    async fn adopt_stale_fields(&self, node: NodeId, max: usize) -> Result<usize, StoreError> {
        let rows = self.pool.rows("adopt", ADOPT, &[&node.0, &whole(max)]).await?;
        let count: i64 = only(&rows)?;
        unsigned(count)
    }

    async fn repeat_removals(&self, node: NodeId, own: bool, max: usize) -> Result<usize, StoreError> {
        let max = whole(max);
        let rows = self.pool.rows("repeat", REPEAT, &[&node.0, &REPEATED_MINUTES, &max, &own]).await?;
        let count: i64 = only(&rows)?;
        unsigned(count)
    }

    async fn expire_removals(&self, minute: i64, max: usize) -> Result<(i64, bool), StoreError> {
        let max = whole(max);
        let rows = self.pool.rows("expire", EXPIRE, &[&minute, &REPEATED_MINUTES, &max]).await?;
        let row = rows.first().ok_or_else(|| unreadable("none"))?;
        let count: i64 = get(row, 0)?;
        let (reached, bound): (Option<i64>, i64) = (get(row, 1)?, get(row, 2)?);
        Ok(if count < max { (bound.max(minute), false) } else { (reached.unwrap_or(minute), true) })
    }
}

fn stale_field(row: &Row) -> Result<(i64, StaleField), StoreError> {
    let (teacher, student): (Option<&str>, Option<&str>) = (get(row, 4)?, get(row, 5)?);
    let successors = Successors { teacher: teacher.map(sid).transpose()?, student: student.map(sid).transpose()? };
    let field = KeyField {
        lesson: LessonId::parse(get(row, 1)?).map_err(unreadable)?,
        user: UserId::parse(get(row, 2)?).map_err(unreadable)?,
        sid: sid(get(row, 3)?)?,
    };
    Ok((get(row, 0)?, StaleField { field, successors }))
}
