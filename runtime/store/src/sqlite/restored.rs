//! Prepares a database that was put back from a backup: no session in it is live, and no id of it may be given out
//! again.
use std::path::Path;

use rusqlite::TransactionBehavior;
use uuid::Uuid;

use super::{db_thread::failed, file, ids, session_end::history, stale_fields::stale_fields_of};
use crate::{Restored, StoreError};

const STALE_FIELDS: &str = stale_fields_of!("0", "false", "true");
const HISTORY: &str = history!("insert or ignore", "'node_lost'", "null", "null", "true");

pub(super) fn prepare(path: &Path) -> Result<Restored, StoreError> {
    let _serves = file::lock(path)?;
    let mut connection = file::open(path)?;
    let anew = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    ids::raise_ids(&anew)?;
    let run = |sql: &str| anew.execute(sql, []).map_err(failed);
    anew.execute("update installation set id = ?1", [Uuid::new_v4().to_string()]).map_err(failed)?;
    run(STALE_FIELDS)?;
    run(HISTORY)?;
    let sessions = run("delete from agent_session")?;
    let events = run("delete from outbox")? + run("delete from outbox_quarantine")?;
    run("delete from webhook_event")?;
    run("delete from node")?;
    anew.commit().map_err(failed)?;
    Ok(Restored { sessions: sessions as u64, events: events as u64 })
}
