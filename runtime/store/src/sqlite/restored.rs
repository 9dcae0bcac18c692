//! After a backup was put back: nothing in it is live, and no id of it may be given out again.
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

use super::{db_thread::failed, file, lease};
use crate::{Restored, StoreError, now_micros};

const LEAVINGS: &str = "insert into stale_field (node_id, lesson_id, user_id, sid) \
    select 0, lesson_id, user_id, sid from agent_session where lesson_id is not null \
    union all select 0, lesson_before, user_id, sid from agent_session where lesson_before is not null";

const END: &str = "insert or ignore into agent_session_history \
    (id, agent_id, classroom_id, user_id, lesson_id, started_at, reason) \
    select id, agent_id, classroom_id, user_id, lesson_id, started_at, 'node_lost' from agent_session";

/// Beyond what was given out after any copy of the file was made, and after any earlier jump from the same copy: nobody gives
/// out a million a second. Where the clock was put back, the jump alone has to do.
const JUMP: &str = "update sqlite_sequence set seq = max(seq, ?1) + 1000000";

/// A table that never had a row has no sequence yet.
const SEQUENCES: &str = "insert into sqlite_sequence (name, seq) \
    select value, 0 from json_each('[\"node\", \"agent_session\", \"outbox\", \"leaving\"]') \
    where value not in (select name from sqlite_sequence)";

/// Raises all ids.
pub(super) fn raise_ids(connection: &Connection) -> Result<(), StoreError> {
    connection.execute(SEQUENCES, []).map_err(failed)?;
    connection.execute(JUMP, [now_micros()]).map(drop).map_err(failed)
}

pub(super) fn make_anew(path: &Path) -> Result<Restored, StoreError> {
    let _serves = lease::lock(path)?;
    let mut connection = file::open(path)?;
    let anew = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    raise_ids(&anew)?;
    let run = |sql: &str| anew.execute(sql, []).map_err(failed);
    anew.execute("update installation set id = ?1", [Uuid::new_v4().to_string()]).map_err(failed)?;
    run(LEAVINGS)?;
    run(END)?;
    let sessions = run("delete from agent_session")?;
    let events = run("delete from outbox")? + run("delete from outbox_quarantine")?;
    run("delete from node")?;
    anew.commit().map_err(failed)?;
    Ok(Restored { sessions: sessions as u64, events: events as u64 })
}
