//! Removals that Redis has carried out. They are kept as long as a failover of Redis may undo them.
use rollcall_schema::{NodeId, Sid};
use rusqlite::{Connection, params};

use super::{db_thread::failed, rows::whole};
use crate::{StoreError, stale_fields::REPEATED_MINUTES};

const KEEP: &str = "insert into removal (node_id, lesson_id, user_id, sid) values (?1, ?2, ?3, ?4)";

/// No other node lives, so all other nodes' removals are repeated.
const REPEAT: &str = "insert into stale_field (node_id, lesson_id, user_id, sid) \
    select ?3, lesson_id, user_id, sid from removal \
    where minute >= strftime('%s', 'now') / 60 - ?1 and (?4 or node_id <> ?3) order by minute, rowid limit ?2";

const REPEATED: &str = "delete from removal where rowid in ( \
    select rowid from removal where minute >= strftime('%s', 'now') / 60 - ?1 and (?4 or node_id <> ?3) \
    order by minute, rowid limit ?2)";

const EXPIRE: &str = "delete from removal where rowid in ( \
    select rowid from removal where minute < ?1 order by minute limit ?2)";

/// Keeps the removal of the field of a lesson, a user and a connection.
pub(super) fn keep(
    connection: &Connection,
    node: NodeId,
    (lesson, user, sid): (&str, &str, Sid),
) -> Result<(), StoreError> {
    let values = params![node.0, lesson, user, sid.to_string()];
    connection.prepare_cached(KEEP).and_then(|mut keep| keep.execute(values)).map(drop).map_err(failed)
}

pub(super) fn repeat(connection: &Connection, node: NodeId, own: bool, max: usize) -> Result<usize, StoreError> {
    let values = params![REPEATED_MINUTES, whole(max), node.0, own];
    connection.prepare_cached(REPEAT).and_then(|mut add| add.execute(values)).map_err(failed)?;
    connection.prepare_cached(REPEATED).and_then(|mut delete| delete.execute(values)).map_err(failed)
}

pub(super) fn expire(connection: &Connection, minute: i64, max: usize) -> Result<(i64, bool), StoreError> {
    let now: i64 = connection.query_row("select strftime('%s', 'now') / 60", [], |row| row.get(0)).map_err(failed)?;
    let bound = now - REPEATED_MINUTES;
    let values = params![bound, whole(max)];
    let gone = connection.prepare_cached(EXPIRE).and_then(|mut expire| expire.execute(values)).map_err(failed)?;
    let more = gone >= max;
    Ok((if more { minute } else { bound.max(minute) }, more))
}
