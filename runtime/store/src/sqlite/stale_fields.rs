//! Stale fields, which wait until Redis has removed them. They are written before the rows of their sessions change.
use async_trait::async_trait;
use rollcall_schema::{LessonId, NodeId, Sid, Successors, UserId};
use rusqlite::{Connection, params};

use super::{
    db_thread::failed,
    removals,
    rows::{rows, sid, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{KeyField, StaleField, StaleFields, StoreError};

/// Adds the fields of sessions. With "or fail" SQLite keeps no journal for the statement, which is not needed, because
/// a savepoint undoes all of it.
macro_rules! stale_fields_of {
    ($node:literal, $held:literal, $where:literal) => {
        concat!(
            "insert or fail into stale_field (node_id, lesson_id, user_id, sid, held) select ",
            $node,
            ", lesson_id, user_id, sid, ",
            $held,
            " from agent_session where lesson_id is not null and ",
            $where,
            " union all select ",
            $node,
            ", lesson_before, user_id, sid, ",
            $held,
            " from agent_session where lesson_before is not null and ",
            $where
        )
    };
}
pub(super) use stale_fields_of;

/// The stale fields of an agent's session in a classroom, if the session belongs to another connection that has not
/// ended yet.
pub(super) const OF_OTHER: &str =
    stale_fields_of!("node_id", "true", "classroom_id = ?1 and agent_id = ?2 and sid <> ?3");

const ADD: &str = "insert into stale_field (node_id, lesson_id, user_id, sid) values (?1, ?2, ?3, ?4)";

const HOLD: &str = "insert into stale_field (node_id, lesson_id, user_id, sid, held) select ?1, ?2, ?3, ?4, true \
    where not exists (select 1 from stale_field where held and sid = ?4 and lesson_id = ?2)";

/// The user's session that joined the lesson last, among those with such a role.
macro_rules! latest {
    ($role:literal) => {
        concat!(
            "(select s.sid from agent_session s where s.user_id = l.user_id and s.lesson_id = l.lesson_id and s.lesson_role ",
            $role,
            " order by s.joined_at desc, s.id desc limit 1)"
        )
    };
}

/// A connection that is still in the lesson is its own successor, so its field stays.
const READ: &str = concat!(
    "select id, lesson_id, user_id, sid, ",
    latest!("= 'teacher'"),
    ", ",
    latest!("<> 'teacher'"),
    " from stale_field l where node_id <> ?1 or not held order by id limit ?2"
);

const HELD: &str = "select id, sid from stale_field where node_id = ?1 and held and id > ?2 order by id limit ?3";

const RELEASE: &str = "update stale_field set held = false where held and sid = ?1";

const STAYS: &str = "select 1 from agent_session where user_id = ?1 and lesson_id = ?2 and sid = ?3";

#[async_trait]
impl StaleFields for SqliteStore {
    async fn add_stale_fields(&self, node: NodeId, fields: &[KeyField], ended: &[Sid]) -> Result<(), StoreError> {
        let (fields, ended) = (fields.to_vec(), ended.to_vec());
        let work = move |connection: &Connection| {
            release(connection, &ended)?;
            add(connection, node, &fields)
        };
        self.writer.call("leave", work).await
    }

    async fn stale_fields(&self, node: NodeId, max: usize) -> Result<Vec<(i64, StaleField)>, StoreError> {
        self.reader.call("stale_fields", move |connection| read(connection, node, max)).await
    }

    async fn forget_stale_fields(
        &self,
        node: NodeId,
        done: &[(i64, StaleField)],
        keep: bool,
    ) -> Result<(), StoreError> {
        let done = done.to_vec();
        self.writer.call("forget", move |connection| forget(connection, node, &done, keep)).await
    }

    async fn held_stale_fields(&self, node: NodeId, after: i64, max: usize) -> Result<Vec<(i64, Sid)>, StoreError> {
        self.reader.call("held", move |connection| held(connection, node, after, max)).await
    }

    async fn repeat_removals(&self, node: NodeId, own: bool, max: usize) -> Result<usize, StoreError> {
        self.writer.call("repeat", move |connection| removals::repeat(connection, node, own, max)).await
    }

    async fn expire_removals(&self, minute: i64, max: usize) -> Result<(i64, bool), StoreError> {
        self.writer.call("expire", move |connection| removals::expire(connection, minute, max)).await
    }
}

pub(super) fn add(connection: &Connection, node: NodeId, fields: &[KeyField]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(ADD).map_err(failed)?;
    for KeyField { lesson, user, sid } in fields {
        statement.execute(params![node.0, lesson.as_str(), user.as_str(), sid.to_string()]).map_err(failed)?;
    }
    Ok(())
}

/// Holds the field of a guest, because a guest has no session whose end would add it.
pub(super) fn hold(
    connection: &Connection,
    node: NodeId,
    lesson: &LessonId,
    user: &UserId,
    sid: Sid,
) -> Result<(), StoreError> {
    let values = params![node.0, lesson.as_str(), user.as_str(), sid.to_string()];
    connection.prepare_cached(HOLD).and_then(|mut hold| hold.execute(values)).map(drop).map_err(failed)
}

fn release(connection: &Connection, ended: &[Sid]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(RELEASE).map_err(failed)?;
    ended.iter().try_for_each(|sid| statement.execute([sid.to_string()]).map(drop)).map_err(failed)
}

fn read(connection: &Connection, node: NodeId, max: usize) -> Result<Vec<(i64, StaleField)>, StoreError> {
    rows(connection, READ, params![node.0, whole(max)], |row| {
        let successor = |column| {
            let found: Option<String> = row.get(column).map_err(failed)?;
            found.as_deref().map(sid).transpose()
        };
        let successors = Successors { teacher: successor(4)?, student: successor(5)? };
        let field = KeyField {
            lesson: LessonId::parse(&text(row, 1)?).map_err(unreadable)?,
            user: UserId::parse(&text(row, 2)?).map_err(unreadable)?,
            sid: sid(&text(row, 3)?)?,
        };
        Ok((row.get(0).map_err(failed)?, StaleField { field, successors }))
    })
}

fn held(connection: &Connection, node: NodeId, after: i64, max: usize) -> Result<Vec<(i64, Sid)>, StoreError> {
    rows(connection, HELD, params![node.0, after, whole(max)], |row| {
        Ok((row.get(0).map_err(failed)?, sid(&text(row, 1)?)?))
    })
}

/// Forgets fields that were removed. If a successor has left meanwhile, its own removal may have been carried out
/// before the field was set to it. So a new stale field is written for it.
fn forget(connection: &Connection, node: NodeId, done: &[(i64, StaleField)], keep: bool) -> Result<(), StoreError> {
    let mut delete = connection.prepare_cached("delete from stale_field where id = ?1").map_err(failed)?;
    let mut stays = connection.prepare_cached(STAYS).map_err(failed)?;
    for (id, StaleField { field, successors }) in done {
        let KeyField { lesson, user, sid } = field;
        if keep {
            removals::keep(connection, node, (lesson.as_str(), user.as_str(), *sid))?;
        }
        delete.execute([id]).map_err(failed)?;
        for successor in successors.all() {
            if !stays.exists(params![user.as_str(), lesson.as_str(), successor.to_string()]).map_err(failed)? {
                add(connection, node, &[KeyField { sid: successor, ..field.clone() }])?;
            }
        }
    }
    Ok(())
}
