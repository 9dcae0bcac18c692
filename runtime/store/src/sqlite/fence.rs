//! The check of a node's lease, in the transaction of each write.
use rusqlite::{Connection, params};

use super::db_thread::failed;
use crate::{Lease, StoreError};

/// Returns an error if this node may not write.
pub(super) fn fence(connection: &Connection, lease: Lease) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("select 1 from node where id = ?1 and epoch = ?2").map_err(failed)?;
    let held = statement.exists(params![lease.node.0, lease.epoch.0]).map_err(failed)?;
    if held { Ok(()) } else { Err(StoreError::Fenced) }
}
