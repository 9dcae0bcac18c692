//! The node's right to write: a lock on a file beside the database, which ends with the process, however it ends.
//!
//! The row in `node` is there for the same reason as in Postgres: what an earlier registration left in flight writes
//! nothing.
use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use rollcall_schema::{Epoch, NodeId, SessionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{desk::failed, read};
use crate::store::{Lease, Placed, Pulse, Registration, StoreError};

pub(super) const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// Takes the lock that a serving process holds while it lives.
pub(super) fn lock(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let shown = Path::new(&path).display().to_string();
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| StoreError::Refused(format!("{shown}: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Refused(format!(
            "another rollcall is serving {} (it holds {shown}): stop it first, or give this one a DATABASE_URL of its own",
            database.display()
        ))),
        Err(TryLockError::Error(error)) => Err(StoreError::Refused(format!("{shown}: {error}"))),
    }
}

/// Writes only what this node may.
pub(super) fn fence(connection: &Connection, lease: Lease) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("select 1 from node where id = ?1 and epoch = ?2").map_err(failed)?;
    let held = statement.exists(params![lease.node.0, lease.epoch.0]).map_err(failed)?;
    if held { Ok(()) } else { Err(StoreError::Fenced) }
}

/// Ends what earlier processes left behind, and enters as the only node. Returns what was in a lesson.
pub(super) fn register(
    connection: &Connection,
    registration: &Registration,
) -> Result<(Lease, usize, Vec<Placed>), StoreError> {
    let placed = read::placed(connection, None, SessionId(0), usize::MAX)?;
    connection
        .execute(
            "insert into agent_session_history (id, agent_id, classroom_id, started_at, reason) \
             select id, agent_id, classroom_id, started_at, 'node_lost' from agent_session",
            [],
        )
        .map_err(failed)?;
    connection
        .execute(
            "insert into outbox (classroom_id, agent_id, session_id, operation, reason) \
             select classroom_id, agent_id, id, 'left', 'node_lost' from agent_session order by id",
            [],
        )
        .map_err(failed)?;
    let swept = connection.execute("delete from agent_session", []).map_err(failed)?;
    connection.execute("delete from node", []).map_err(failed)?;
    connection
        .execute(
            &format!("insert into node (label, lease_until, solitary) values (?1, {NOW}, ?2)"),
            params![registration.label, registration.solitary],
        )
        .map_err(failed)?;
    let lease = Lease { node: NodeId(connection.last_insert_rowid()), epoch: Epoch(1) };
    renew(connection, lease, registration.lease)?;
    Ok((lease, swept, placed))
}

fn renew(connection: &Connection, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
    let renewed = connection
        .prepare_cached(
            "update node set lease_until = strftime('%Y-%m-%d %H:%M:%f', 'now', ?3) where id = ?1 and epoch = ?2",
        )
        .and_then(|mut statement| {
            statement.execute(params![lease.node.0, lease.epoch.0, format!("+{:.3} seconds", ttl.as_secs_f64())])
        })
        .map_err(failed)?;
    if renewed == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

pub(super) fn pulse(connection: &Connection, lease: Lease, ttl: Duration) -> Result<Pulse, StoreError> {
    renew(connection, lease, ttl)?;
    let (rows, lag): (i64, Option<f64>) = connection
        .prepare_cached(
            "select count(*), (julianday('now') - julianday((select created_at from outbox order by id limit 1))) * 86400 \
             from outbox",
        )
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(failed)?;
    Ok(Pulse {
        replaced: Vec::new(),
        nodes: 1,
        outbox_rows: u64::try_from(rows).unwrap_or(0),
        outbox_lag: Duration::from_secs_f64(lag.unwrap_or(0.0).max(0.0)),
    })
}

pub(super) fn retire(connection: &Connection, lease: Lease) -> Result<(), StoreError> {
    fence(connection, lease)?;
    let left: Option<i64> =
        connection.query_row("select 1 from agent_session limit 1", [], |row| row.get(0)).optional().map_err(failed)?;
    let end = match left {
        // The next registration ends them.
        Some(_) => "update node set epoch = epoch + 1 where id = ?1",
        None => "delete from node where id = ?1",
    };
    connection.execute(end, [lease.node.0]).map(drop).map_err(failed)
}
