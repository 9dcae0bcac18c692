//! How a session ends in SQL, once for a close and for the sessions of a dead process.
use rollcall_schema::LeftReason;
use rusqlite::{Connection, params};

use super::{db_thread::failed, stale_fields::stale_fields_of};
use crate::StoreError;

/// Writes sessions into the history.
macro_rules! history {
    ($insert:literal, $reason:literal, $where:literal) => {
        concat!(
            $insert,
            " into agent_session_history (id, agent_id, classroom_id, user_id, lesson_id, started_at, reason) \
             select id, agent_id, classroom_id, user_id, lesson_id, started_at, ",
            $reason,
            " from agent_session where ",
            $where
        )
    };
}
pub(super) use history;

const STALE_FIELDS: &str = stale_fields_of!("node_id", "?2", "id = ?1");
const HISTORY: &str = history!("insert", "?2", "id = ?1");
const LEFT: &str = "insert into outbox (classroom_id, agent_id, session_id, operation, reason) \
    select classroom_id, agent_id, id, 'left', ?2 from agent_session where id = ?1";
const DELETE: &str = "delete from agent_session where id = ?1";

/// Ends a session: its stale fields, its history row and agent.left are written, and its row goes. With `held` the fields
/// are not removed before the connection has ended.
pub(super) fn end(connection: &Connection, session: i64, reason: LeftReason, held: bool) -> Result<(), StoreError> {
    let run = |sql, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(drop).map_err(failed)
    };
    let (only, both) = (params![session], params![session, reason.as_str()]);
    run(STALE_FIELDS, params![session, held])?;
    run(HISTORY, both)?;
    run(LEFT, both)?;
    run(DELETE, only)
}
