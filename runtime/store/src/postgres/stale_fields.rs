//! KeyCleanup: what waits until the key store has carried it out.
//!
//! Their rows are written by the statements that end or take over sessions ([`super::sessions`], [`super::lease`]).
use rollcall_schema::{LessonId, NodeId, Sid, UserId};
use tokio_postgres::Row;

use super::{PostgresStore, pool::unreadable, reads::sid};
use crate::{KeyField, StaleField, StoreError};

const ADD: &str = "with released as (
        update stale_field set held = false where held and sid = any ($5)
    )
    insert into stale_field (node_id, lesson_id, user_id, sid)
    select $1, lesson_id, user_id, sid from unnest($2::text[], $3::text[], $4::text[]) as i(lesson_id, user_id, sid)";

/// A connection that is still in the lesson is its own successor: its field stays.
const READ: &str = "select l.id, l.lesson_id, l.user_id, l.sid, (
        select s.sid from agent_session s where s.user_id = l.user_id and s.lesson_id = l.lesson_id
        order by s.joined_at desc limit 1
    )
    from stale_field l
    where l.node_id = $1 and not l.held or l.node_id <> all (array(select id from node where not taken))
    order by l.id limit $2";

/// An successor that left before this statement may have been made the holder after its own leaving was carried out; one
/// that leaves later finds itself the holder.
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

impl PostgresStore {
    pub(super) async fn add_leavings(
        &self,
        node: NodeId,
        fields: &[KeyField],
        ended: &[Sid],
    ) -> Result<(), StoreError> {
        let lessons: Vec<&str> = fields.iter().map(|field| field.lesson.as_str()).collect();
        let users: Vec<&str> = fields.iter().map(|field| field.user.as_str()).collect();
        let sids: Vec<String> = fields.iter().map(|field| field.sid.to_string()).collect();
        let ended: Vec<String> = ended.iter().map(Sid::to_string).collect();
        self.pool.rows("leave", ADD, &[&node.0, &lessons, &users, &sids, &ended]).await.map(drop)
    }

    pub(super) async fn read_leavings(&self, node: NodeId, most: usize) -> Result<Vec<(i64, StaleField)>, StoreError> {
        let most = i64::try_from(most).map_err(unreadable)?;
        let rows = self.pool.rows("leavings", READ, &[&node.0, &most]).await?;
        rows.iter().map(leaving).collect()
    }

    pub(super) async fn forget_leavings(
        &self,
        node: NodeId,
        done: &[(i64, StaleField)],
        keep: bool,
    ) -> Result<(), StoreError> {
        let ids: Vec<i64> = done.iter().map(|(id, _)| *id).collect();
        let handed: Vec<_> =
            done.iter().filter_map(|(_, leaving)| Some((&leaving.field, leaving.successor?))).collect();
        let lessons: Vec<&str> = handed.iter().map(|(field, _)| field.lesson.as_str()).collect();
        let users: Vec<&str> = handed.iter().map(|(field, _)| field.user.as_str()).collect();
        let successors: Vec<String> = handed.iter().map(|(_, successor)| successor.to_string()).collect();
        self.pool.rows("forget", FORGET, &[&node.0, &ids, &lessons, &users, &successors, &keep]).await.map(drop)
    }

    pub(super) async fn held_leavings(
        &self,
        node: NodeId,
        after: i64,
        most: usize,
    ) -> Result<Vec<(i64, Sid)>, StoreError> {
        let most = i64::try_from(most).map_err(unreadable)?;
        let rows = self.pool.rows("held", HELD, &[&node.0, &after, &most]).await?;
        let held = |row: &Row| Ok((row.try_get(0).map_err(unreadable)?, sid(row.try_get(1).map_err(unreadable)?)?));
        rows.iter().map(held).collect()
    }
}

fn leaving(row: &Row) -> Result<(i64, StaleField), StoreError> {
    let successor: Option<&str> = row.try_get(4).map_err(unreadable)?;
    let field = KeyField {
        lesson: LessonId::parse(row.try_get(1).map_err(unreadable)?).map_err(unreadable)?,
        user: UserId::parse(row.try_get(2).map_err(unreadable)?).map_err(unreadable)?,
        sid: sid(row.try_get(3).map_err(unreadable)?)?,
    };
    Ok((row.try_get(0).map_err(unreadable)?, StaleField { field, successor: successor.map(sid).transpose()? }))
}
