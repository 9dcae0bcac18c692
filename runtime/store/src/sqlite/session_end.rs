//! Ends a session in SQL, at a close and for the sessions of a dead process.
use rollcall_schema::{KickCause, LeftReason};
use rusqlite::{Connection, params};

use super::{db_thread::failed, stale_fields::stale_fields_of};
use crate::StoreError;

/// Writes sessions to the history.
macro_rules! history {
    ($insert:literal, $reason:literal, $cause:literal, $resume_id:literal, $where:literal) => {
        concat!(
            $insert,
            " into agent_session_history (id, agent_id, classroom_id, user_id, lesson_id, started_at, reason, \
             cause, resume_id, taken_over_at) \
             select id, agent_id, classroom_id, user_id, lesson_id, started_at, ",
            $reason,
            ", ",
            $cause,
            ", ",
            $resume_id,
            ", taken_over_at from agent_session where ",
            $where
        )
    };
}
pub(super) use history;

const STALE_FIELDS: &str = stale_fields_of!("node_id", "?2", "id = ?1");
const HISTORY: &str = history!("insert", "?2", "?4", "case when ?3 then resume_id end", "id = ?1");
const LEFT: &str = "insert into outbox (classroom_id, agent_id, session_id, operation, reason, \
    traceparent) select classroom_id, agent_id, id, 'left', ?2, traceparent from agent_session where id = ?1";
const DELETE: &str = "delete from agent_session where id = ?1";

/// How a session ends.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub reason: LeftReason,
    /// Whether the fields are removed only after the connection has ended.
    pub held: bool,
    /// Whether the client can still find the session for a while.
    pub resumable: bool,
}

impl End {
    /// The end by an operator.
    pub const KICKED: Self =
        Self { reason: LeftReason::Kicked(Some(KickCause::OPERATOR)), held: true, resumable: false };
    /// The end because the process has ended.
    pub const NODE_LOST: Self = Self { reason: LeftReason::NodeLost, held: false, resumable: true };
}

/// Ends a session: writes its stale fields, its history row and agent.left, and deletes its row.
pub(super) fn end(connection: &Connection, session: i64, end: End) -> Result<(), StoreError> {
    let End { reason, held, resumable } = end;
    let run = |sql, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(drop).map_err(failed)
    };
    let (only, both) = (params![session], params![session, reason.as_str()]);
    run(STALE_FIELDS, params![session, held])?;
    run(HISTORY, params![session, reason.as_str(), resumable, reason.cause().map(KickCause::as_str)])?;
    run(LEFT, both)?;
    run(DELETE, only)
}
