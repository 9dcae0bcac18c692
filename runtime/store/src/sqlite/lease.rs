//! The node's right to write. A lock on a file beside the database lets only one process serve until it ends. As in
//! Postgres, the row in `node` ensures that calls of an earlier registration that are still under way write nothing.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{Epoch, NodeId, SessionId, Sid};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    db_thread::{failed, in_savepoint},
    fence::fence,
    file, ids, kicks, rows,
    session_end::{self, End},
    store::SqliteStore,
};
use crate::{HeartbeatReply, Lease, NodeLeases, Registration, StoreError, session_quarantine::SessionQuarantine};

const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

const FORGET_EMPTY: &str =
    "delete from node where id = ?1 and not exists (select 1 from agent_session where node_id = node.id)";

#[async_trait]
impl NodeLeases for SqliteStore {
    async fn register(&self, registration: &Registration) -> Result<Lease, StoreError> {
        self.lock.get_or_try_init(async || file::lock(&self.path)).await?;
        let registration = registration.clone();
        let registered = self.writer.call("register", move |connection| register(connection, &registration));
        let lease = registered.await?;
        self.wake();
        Ok(lease)
    }

    async fn renew_lease(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError> {
        self.writer.call("renew_lease", move |connection| renew_lease(connection, lease, ttl)).await
    }

    /// Does nothing, because there is no other node that could read the statistics.
    fn report(&self, _: String) {}

    async fn ack_takeovers(&self, _: NodeId, replaced: &[Sid]) -> Result<(), StoreError> {
        let replaced = replaced.to_vec();
        self.writer.call("ack_takeovers", move |connection| ack_takeovers(connection, &replaced)).await
    }

    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
        self.writer.call("probe", move |connection| probe(connection, lease, ttl)).await
    }

    async fn reap(&self, lease: Lease, max: usize) -> Result<usize, StoreError> {
        let quarantine = Arc::clone(&self.quarantine);
        let sessions = self.writer.call("reap", move |connection| reap(connection, &quarantine, lease, max)).await?;
        if sessions > 0 {
            self.wake();
        }
        Ok(sessions)
    }

    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError> {
        self.writer.call("release_lease", move |connection| release_lease(connection, lease)).await
    }

    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError> {
        self.reader.call("knows", move |connection| knows_node(connection, node)).await
    }
}

/// Registers as the only node that lives. All ids jump at each start but the first: the file may be a copy that was
/// made a moment before the last end, and ids that were given out since then are in the stream. Sessions of earlier
/// processes stay until their lease ends, as those of a dead node do, so that their agents can come back to them.
fn register(connection: &Connection, registration: &Registration) -> Result<Lease, StoreError> {
    let first: bool = connection
        .query_row("select not exists (select 1 from sqlite_sequence where name = 'node')", [], |row| row.get(0))
        .map_err(failed)?;
    if !first {
        ids::raise_ids(connection)?;
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
fn reap(
    connection: &Connection,
    quarantine: &SessionQuarantine,
    lease: Lease,
    max: usize,
) -> Result<usize, StoreError> {
    fence(connection, lease)?;
    let expired: Vec<i64> = connection
        .prepare_cached(&format!("select id from node where id <> ?1 and lease_until <= {NOW}"))
        .and_then(|mut nodes| nodes.query_map([lease.node.0], |row| row.get(0))?.collect())
        .map_err(failed)?;
    let (mut ended, quarantined) = (0, quarantine.sessions());
    let room = |ended: usize| i64::try_from(max - ended + quarantined.len()).unwrap_or(i64::MAX);
    for node in expired {
        let lost: Vec<i64> = connection
            .prepare_cached("select id from agent_session where node_id = ?1 order by id limit ?2")
            .and_then(|mut lost| lost.query_map((node, room(ended)), |row| row.get(0))?.collect())
            .map_err(failed)?;
        for id in lost.into_iter().filter(|id| !quarantined.contains(id)).take(max - ended) {
            match in_savepoint(connection, |connection| session_end::end(connection, id, End::NODE_LOST)) {
                Ok(()) => ended += 1,
                Err(StoreError::Refused(why)) => quarantine.add(SessionId(id), &why),
                Err(error) => return Err(error),
            }
        }
        connection.execute(FORGET_EMPTY, [node]).map_err(failed)?;
    }
    Ok(ended)
}

fn from_now(time: Duration) -> String {
    format!("+{:.3} seconds", time.as_secs_f64())
}

/// Renews the lease. It is written only after a quarter of it has gone, because a commit for each heartbeat costs an
/// idle node a fifth of its processor time.
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

/// Always renews the lease, because the probe must find out whether the file takes a write.
fn probe(connection: &Connection, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
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

fn renew_lease(connection: &Connection, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError> {
    renew(connection, lease, ttl)?;
    let sids = |sql| rows::rows(connection, sql, [], |row| rows::sid(&rows::text(row, 0)?));
    Ok(HeartbeatReply {
        replaced: sids("select sid from temp.takeover")?,
        kicks: kicks::waiting(connection)?,
        nodes: 1,
        // No other node runs beside this one.
        was_expired: false,
        // An earlier process may be dead. Looking for it costs as little as checking whether to look.
        dead: true,
    })
}

fn ack_takeovers(connection: &Connection, replaced: &[Sid]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("delete from temp.takeover where sid = ?1").map_err(failed)?;
    replaced.iter().try_for_each(|sid| statement.execute([sid.to_string()]).map(drop)).map_err(failed)
}

fn release_lease(connection: &Connection, lease: Lease) -> Result<(), StoreError> {
    fence(connection, lease)?;
    let left: Option<i64> =
        connection.query_row("select 1 from agent_session limit 1", [], |row| row.get(0)).optional().map_err(failed)?;
    let end = match left {
        // The lease is free for the next process at once.
        Some(_) => format!("update node set epoch = epoch + 1, lease_until = {NOW} where id = ?1"),
        None => "delete from node where id = ?1".to_owned(),
    };
    connection.execute(&end, [lease.node.0]).map(drop).map_err(failed)
}

fn knows_node(connection: &Connection, node: NodeId) -> Result<bool, StoreError> {
    let found = connection.query_row("select 1 from node where id = ?1", [node.0], |_| Ok(())).optional();
    found.map(|found| found.is_some()).map_err(failed)
}
