//! The node's right to write: a lock on a file beside the database, which ends with the process, however it ends.
//!
//! The row in `node` is there for the same reason as in Postgres: what an earlier registration left in flight writes
//! nothing.
use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use rollcall_schema::{Epoch, NodeId, SessionId, Sid};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    db_thread::{failed, in_savepoint},
    read, restored, stale_fields,
};
use crate::{HeartbeatReply, Lease, Registration, StoreError, quarantine::Quarantine};

pub(super) const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// The end of a session whose process is dead.
const LOSE: [&str; 4] = [
    stale_fields::OF_SESSION,
    "insert into agent_session_history (id, agent_id, classroom_id, user_id, lesson_id, started_at, reason) \
     select id, agent_id, classroom_id, user_id, lesson_id, started_at, 'node_lost' from agent_session where id = ?1",
    "insert into outbox (classroom_id, agent_id, session_id, operation, reason) \
     select classroom_id, agent_id, id, 'left', 'node_lost' from agent_session where id = ?1",
    "delete from agent_session where id = ?1",
];

const BURY: &str =
    "delete from node where id = ?1 and not exists (select 1 from agent_session where node_id = node.id)";

/// Connections that lost their session to another one, until they are told: in memory, for they end with the process.
pub(super) fn notices(connection: Connection) -> Result<Connection, StoreError> {
    connection.execute_batch("create temp table takeover (sid text primary key) without rowid").map_err(failed)?;
    Ok(connection)
}

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

/// Enters as the only node that lives. All ids jump at each start but the first: the file may be a copy that was made a
/// moment before the last end, and ids that were given out since then are in the stream. Earlier processes' sessions stay until their lease ends, as a dead node's do, so that
/// their agents can come back to them.
pub(super) fn register(connection: &Connection, registration: &Registration) -> Result<Lease, StoreError> {
    let first: bool = connection
        .query_row("select not exists (select 1 from sqlite_sequence where name = 'node')", [], |row| row.get(0))
        .map_err(failed)?;
    if !first {
        restored::raise_ids(connection)?;
    }
    connection.execute("update node set epoch = epoch + 1", []).map_err(failed)?;
    connection
        .execute(
            &format!("insert into node (label, lease_until, standalone) values (?1, {NOW}, ?2)"),
            params![registration.label, registration.standalone],
        )
        .map_err(failed)?;
    let lease = Lease { node: NodeId(connection.last_insert_rowid()), epoch: Epoch(1) };
    renew(connection, lease, registration.lease)?;
    Ok(lease)
}

/// Ends sessions of earlier processes whose lease has ended, the oldest first.
pub(super) fn reap(
    connection: &Connection,
    refused: &Quarantine,
    lease: Lease,
    most: usize,
) -> Result<usize, StoreError> {
    fence(connection, lease)?;
    let expired: Vec<i64> = connection
        .prepare_cached(&format!("select id from node where id <> ?1 and lease_until <= {NOW}"))
        .and_then(|mut nodes| nodes.query_map([lease.node.0], |row| row.get(0))?.collect())
        .map_err(failed)?;
    let (mut ended, aside) = (0, refused.aside());
    let room = |ended: usize| i64::try_from(most - ended + aside.len()).unwrap_or(i64::MAX);
    for node in expired {
        let lost: Vec<i64> = connection
            .prepare_cached("select id from agent_session where node_id = ?1 order by id limit ?2")
            .and_then(|mut lost| lost.query_map((node, room(ended)), |row| row.get(0))?.collect())
            .map_err(failed)?;
        for id in lost.into_iter().filter(|id| !aside.contains(id)).take(most - ended) {
            match in_savepoint(connection, |connection| lose(connection, id)) {
                Ok(()) => ended += 1,
                Err(StoreError::Refused(why)) => refused.add(SessionId(id), &why),
                Err(error) => return Err(error),
            }
        }
        connection.execute(BURY, [node]).map_err(failed)?;
    }
    Ok(ended)
}

fn lose(connection: &Connection, session: i64) -> Result<(), StoreError> {
    LOSE.into_iter().try_for_each(|statement| {
        connection.prepare_cached(statement).and_then(|mut lose| lose.execute([session])).map(drop).map_err(failed)
    })
}

fn from_now(time: Duration) -> String {
    format!("+{:.3} seconds", time.as_secs_f64())
}

/// Written only once a quarter of it has gone: a commit for each pulse costs an idle node a fifth of its processor time.
fn renew(connection: &Connection, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
    let fresh: Option<bool> = connection
        .prepare_cached(
            "select lease_until between strftime('%Y-%m-%d %H:%M:%f', 'now', ?3) \
             and strftime('%Y-%m-%d %H:%M:%f', 'now', ?4) from node where id = ?1 and epoch = ?2",
        )
        .and_then(|mut statement| {
            let values = params![lease.node.0, lease.epoch.0, from_now(ttl * 3 / 4), from_now(ttl)];
            statement.query_row(values, |row| row.get(0)).optional()
        })
        .map_err(failed)?;
    if fresh.ok_or(StoreError::Fenced)? {
        return Ok(());
    }
    extend(connection, lease, ttl)
}

/// Renews in any case: what is asked for is whether the file takes a write.
pub(super) fn probe(connection: &Connection, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
    fence(connection, lease)?;
    extend(connection, lease, ttl)
}

fn extend(connection: &Connection, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
    connection
        .prepare_cached("update node set lease_until = strftime('%Y-%m-%d %H:%M:%f', 'now', ?2) where id = ?1")
        .and_then(|mut statement| statement.execute(params![lease.node.0, from_now(ttl)]))
        .map(drop)
        .map_err(failed)
}

pub(super) fn pulse(connection: &Connection, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError> {
    renew(connection, lease, ttl)?;
    let replaced = connection
        .prepare_cached("select sid from temp.takeover")
        .and_then(|mut takeovers| {
            takeovers.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
        })
        .map_err(failed)?;
    let replaced = replaced.iter().map(|text| read::sid(text)).collect::<Result<_, _>>()?;
    Ok(HeartbeatReply {
        replaced,
        nodes: 1,
        // Nobody is beside it.
        was_expired: false,
    })
}

pub(super) fn told(connection: &Connection, replaced: &[Sid]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("delete from temp.takeover where sid = ?1").map_err(failed)?;
    replaced.iter().try_for_each(|sid| statement.execute([sid.to_string()]).map(drop)).map_err(failed)
}

pub(super) fn retire(connection: &Connection, lease: Lease) -> Result<(), StoreError> {
    fence(connection, lease)?;
    let left: Option<i64> =
        connection.query_row("select 1 from agent_session limit 1", [], |row| row.get(0)).optional().map_err(failed)?;
    let end = match left {
        // Free for the next process at once.
        Some(_) => format!("update node set epoch = epoch + 1, lease_until = {NOW} where id = ?1"),
        None => "delete from node where id = ?1".to_owned(),
    };
    connection.execute(&end, [lease.node.0]).map(drop).map_err(failed)
}
