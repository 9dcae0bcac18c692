//! KeyCleanup: what waits until the key store has carried it out. Written before the rows of their sessions change.
use rollcall_schema::{LessonId, NodeId, Sid, UserId};
use rusqlite::{Connection, params};

use super::{
    db_thread::failed,
    read::{rows, sid, text, unreadable, whole},
    removals,
};
use crate::{KeyField, StaleField, StoreError};

/// "or fail": what may be undone half way keeps a journal of its own, and a savepoint undoes all of it anyway.
macro_rules! leavings {
    ($held:literal, $where:literal) => {
        concat!(
            "insert or fail into stale_field (node_id, lesson_id, user_id, sid, held) select node_id, lesson_id, user_id, sid, ",
            $held,
            " from agent_session where lesson_id is not null and ",
            $where,
            " union all select node_id, lesson_before, user_id, sid, ",
            $held,
            " from agent_session where lesson_before is not null and ",
            $where
        )
    };
}

/// Of one session.
pub(super) const OF_SESSION: &str = leavings!("false", "id = ?1");
/// Of an agent's session in a classroom, if this connection has it.
pub(super) const OF_OWNER: &str = leavings!("false", "classroom_id = ?1 and agent_id = ?2 and sid = ?3");
/// Of an agent's session in a classroom, if another connection has it, which has not ended yet.
pub(super) const OF_OTHER: &str = leavings!("true", "classroom_id = ?1 and agent_id = ?2 and sid <> ?3");

const ADD: &str = "insert into stale_field (node_id, lesson_id, user_id, sid) values (?1, ?2, ?3, ?4)";

const HOLD: &str = "insert into stale_field (node_id, lesson_id, user_id, sid, held) select ?1, ?2, ?3, ?4, true \
    where not exists (select 1 from stale_field where held and sid = ?4 and lesson_id = ?2)";

/// A connection that is still in the lesson is its own successor: its field stays.
const READ: &str = "select id, lesson_id, user_id, sid, ( \
        select s.sid from agent_session s where s.user_id = l.user_id and s.lesson_id = l.lesson_id \
        order by s.joined_at desc, s.id desc limit 1 \
    ) from stale_field l where node_id <> ?1 or not held order by id limit ?2";

const HELD: &str = "select id, sid from stale_field where node_id = ?1 and held and id > ?2 order by id limit ?3";

const RELEASE: &str = "update stale_field set held = false where held and sid = ?1";

const STAYS: &str = "select 1 from agent_session where user_id = ?1 and lesson_id = ?2 and sid = ?3";

pub(super) fn add(connection: &Connection, node: NodeId, fields: &[KeyField]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(ADD).map_err(failed)?;
    for KeyField { lesson, user, sid } in fields {
        statement.execute(params![node.0, lesson.as_str(), user.as_str(), sid.to_string()]).map_err(failed)?;
    }
    Ok(())
}

/// A guest's, who has no session whose end would add it.
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

pub(super) fn release(connection: &Connection, ended: &[Sid]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(RELEASE).map_err(failed)?;
    ended.iter().try_for_each(|sid| statement.execute([sid.to_string()]).map(drop)).map_err(failed)
}

pub(super) fn read(connection: &Connection, node: NodeId, most: usize) -> Result<Vec<(i64, StaleField)>, StoreError> {
    rows(connection, READ, params![node.0, whole(most)], |row| {
        let successor: Option<String> = row.get(4).map_err(failed)?;
        let field = KeyField {
            lesson: LessonId::parse(&text(row, 1)?).map_err(unreadable)?,
            user: UserId::parse(&text(row, 2)?).map_err(unreadable)?,
            sid: sid(&text(row, 3)?)?,
        };
        let successor = successor.as_deref().map(sid).transpose()?;
        Ok((row.get(0).map_err(failed)?, StaleField { field, successor }))
    })
}

pub(super) fn held(
    connection: &Connection,
    node: NodeId,
    after: i64,
    most: usize,
) -> Result<Vec<(i64, Sid)>, StoreError> {
    rows(connection, HELD, params![node.0, after, whole(most)], |row| {
        Ok((row.get(0).map_err(failed)?, sid(&text(row, 1)?)?))
    })
}

/// An successor that left before this may have been made the holder after its own leaving was carried out.
pub(super) fn forget(
    connection: &Connection,
    node: NodeId,
    done: &[(i64, StaleField)],
    keep: bool,
) -> Result<(), StoreError> {
    let mut delete = connection.prepare_cached("delete from stale_field where id = ?1").map_err(failed)?;
    let mut stays = connection.prepare_cached(STAYS).map_err(failed)?;
    for (id, StaleField { field, successor }) in done {
        if keep {
            removals::keep(connection, node, *id)?;
        }
        delete.execute([id]).map_err(failed)?;
        let Some(successor) = successor else { continue };
        let KeyField { lesson, user, .. } = field;
        if !stays.exists(params![user.as_str(), lesson.as_str(), successor.to_string()]).map_err(failed)? {
            add(connection, node, &[KeyField { sid: *successor, ..field.clone() }])?;
        }
    }
    Ok(())
}
