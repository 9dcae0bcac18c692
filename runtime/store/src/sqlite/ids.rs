//! Raises ids above all that were ever given out.
use rusqlite::Connection;

use super::db_thread::failed;
use crate::{StoreError, now_micros};

/// Jumps beyond all ids that were given out after any copy of the file was made, and after any earlier jump from the
/// same copy, because no process gives out a million ids in a second. If the clock was set back, only the jump itself
/// protects.
const JUMP: &str = "update sqlite_sequence set seq = max(seq, ?1) + 1000000";

/// A table that never had a row has no sequence yet, so one is inserted.
const SEQUENCES: &str = "insert into sqlite_sequence (name, seq) \
    select value, 0 from json_each('[\"node\", \"agent_session\", \"outbox\", \"stale_field\", \"webhook_event\"]') \
    where value not in (select name from sqlite_sequence)";

/// Raises all ids.
pub(super) fn raise_ids(connection: &Connection) -> Result<(), StoreError> {
    connection.execute(SEQUENCES, []).map_err(failed)?;
    connection.execute(JUMP, [now_micros()]).map(drop).map_err(failed)
}
