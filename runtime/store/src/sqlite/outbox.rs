//! The outbox, which one relay of this process reads at a time.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Nonce, SessionId, TraceParent};
use rusqlite::{Connection, Params, Row, params};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    time::timeout,
};

use super::{
    db_thread::{DbThread, failed},
    rows::{rows, text, unreadable, whole},
    store::SqliteStore,
    webhook,
};
use crate::{
    Backlog, Lease, Outbox, OutboxRow, OutboxSource, StoreError,
    outbox::EventColumns,
    outbox_quarantine::{RELEASED_AT_ONCE, RETRY_AFTER, SortedRows},
};

/// How often a read begins again after it quarantined rows. After that it returns what it has.
const READS: usize = 8;

const DELETE: &str = "delete from outbox where id = ?1";
const QUARANTINE: &str = "insert into outbox_quarantine (id, classroom_id, agent_id, session_id, operation, reason, nonce, \
    created_at, state, role, info, traceparent, why, retry_at) \
    select id, classroom_id, agent_id, session_id, operation, reason, nonce, \
    created_at, state, role, info, traceparent, ?2, strftime('%Y-%m-%d %H:%M:%f', 'now', ?3) from outbox where id = ?1";
const DUE: &str = "select distinct classroom_id, agent_id from (select classroom_id, agent_id from outbox_quarantine \
    where retry_at <= strftime('%Y-%m-%d %H:%M:%f', 'now') order by retry_at limit ?1)";
/// The rows keep their ids, so that later rows stay behind them.
const RELEASE: &str = "insert into outbox (id, classroom_id, agent_id, session_id, operation, reason, nonce, created_at, \
    state, role, info, traceparent) select id, classroom_id, agent_id, session_id, operation, reason, nonce, created_at, \
    state, role, info, traceparent \
    from outbox_quarantine where classroom_id = ?1 and agent_id = ?2";
const DELETE_QUARANTINED: &str = "delete from outbox_quarantine where classroom_id = ?1 and agent_id = ?2";
const QUARANTINED: &str = "select count(*) from (select 1 from outbox_quarantine limit 10000)";

fn run(connection: &Connection, sql: &str, values: impl Params) -> Result<(), StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(drop).map_err(failed)
}

struct SqliteOutbox {
    writer: DbThread,
    reader: DbThread,
    relay: Arc<Mutex<()>>,
    claimed: Option<OwnedMutexGuard<()>>,
    changed: watch::Receiver<u64>,
    keep_published: bool,
}

#[async_trait]
impl OutboxSource for SqliteStore {
    async fn open_outbox(&self, _: Lease) -> Result<Box<dyn Outbox>, StoreError> {
        Ok(Box::new(SqliteOutbox {
            writer: self.writer.clone(),
            reader: self.reader.clone(),
            relay: self.relay.clone(),
            claimed: None,
            changed: self.wake.subscribe(),
            keep_published: self.keep_published,
        }))
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.reader.call("backlog", backlog).await
    }
}

/// Returns the backlog. The count is the distance of the first and the last id. It is exact unless rows were published
/// out of order, and rows that are stepped over are not counted.
fn backlog(connection: &Connection) -> Result<Backlog, StoreError> {
    const SQL: &str = "select coalesce((select max(id) from outbox) - (select min(id) from outbox) + 1, 0), \
        coalesce((julianday('now') - julianday((select created_at from outbox order by id limit 1))) * 86400, 0)";
    let mut statement = connection.prepare_cached(SQL).map_err(failed)?;
    let (rows, lag): (i64, f64) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    Ok(Backlog { rows: u64::try_from(rows).unwrap_or(0), lag: Duration::from_secs_f64(lag.max(0.0)) })
}

#[async_trait]
impl Outbox for SqliteOutbox {
    /// Returns the number of deleted rows. The whole outbox is one shard.
    async fn claim(&mut self) -> Result<usize, StoreError> {
        if self.claimed.is_none() {
            self.claimed = self.relay.clone().try_lock_owned().ok();
        }
        Ok(usize::from(self.claimed.is_some()))
    }

    async fn read(&mut self, max: usize) -> Result<Vec<OutboxRow>, StoreError> {
        for _ in 0..READS {
            if self.claimed.is_none() {
                break;
            }
            let answer = self.reader.call("outbox_read", move |connection| read(connection, max));
            let (rows, quarantined) = answer.await?;
            for (ids, why) in &quarantined {
                self.quarantine(ids, why).await?;
            }
            if !rows.is_empty() || quarantined.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    async fn quarantine(&mut self, ids: &[i64], why: &str) -> Result<(), StoreError> {
        let (ids, why) = (ids.to_vec(), why.to_owned());
        let later = format!("+{} seconds", RETRY_AFTER.as_secs());
        let work = move |connection: &Connection| {
            for id in ids {
                run(connection, QUARANTINE, params![id, why, later])?;
                run(connection, DELETE, [id])?;
            }
            Ok(())
        };
        self.writer.call("outbox_set_aside", work).await
    }

    async fn release_quarantined(&mut self) -> Result<u64, StoreError> {
        if self.claimed.is_none() {
            return Ok(0);
        }
        // Most of the time there is nothing to release, and a write would be a useless commit.
        let count = |connection: &Connection| {
            connection.query_row(QUARANTINED, [], |row| row.get::<_, u32>(0)).map(u64::from).map_err(failed)
        };
        if self.reader.call("outbox_quarantine", count).await? == 0 {
            return Ok(0);
        }
        let work = move |connection: &Connection| {
            let due: Vec<(String, String)> =
                rows(connection, DUE, [whole(RELEASED_AT_ONCE)], |row| Ok((text(row, 0)?, text(row, 1)?)))?;
            for (classroom, agent) in due {
                run(connection, RELEASE, [&classroom, &agent])?;
                run(connection, DELETE_QUARANTINED, [&classroom, &agent])?;
            }
            count(connection)
        };
        self.writer.call("outbox_put_back", work).await
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let (ids, keep) = (ids.to_vec(), self.keep_published);
        let delete = move |connection: &Connection| {
            ids.iter().try_for_each(|id| {
                if keep {
                    read_one(connection, *id)?.iter().try_for_each(|row| webhook::keep(connection, row))?;
                }
                run(connection, DELETE, [id])
            })
        };
        self.writer.call("outbox_delete", delete).await
    }

    async fn wait(&mut self, max: Duration) -> Result<(), StoreError> {
        // The outbox is read also when the wait or the store has ended.
        timeout(max, self.changed.changed()).await.ok();
        Ok(())
    }
}

/// The rows to publish, and the ids to quarantine with their reason.
type Read = (Vec<OutboxRow>, Vec<(Vec<i64>, String)>);

/// The columns that [`outbox_row`] reads, and whether an earlier row of the agent is quarantined.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "select id, classroom_id, agent_id, session_id, reason,
        max((julianday('now') - julianday(created_at)) * 86400, 0), operation, nonce, exists (
            select 1 from outbox_quarantine a
            where a.classroom_id = outbox.classroom_id and a.agent_id = outbox.agent_id and a.id < outbox.id
        ), state, role, info, traceparent from outbox ",
            $which
        )
    };
}

fn read_one(connection: &Connection, id: i64) -> Result<Vec<OutboxRow>, StoreError> {
    rows(connection, select!("where id = ?1"), [id], outbox_row)
}

fn read(connection: &Connection, max: usize) -> Result<Read, StoreError> {
    const SQL: &str = select!("order by id limit ?1");
    let mut statement = connection.prepare_cached(SQL).map_err(failed)?;
    let mut rows = statement.query([whole(max)]).map_err(failed)?;
    let mut sorted = SortedRows::default();
    while let Some(row) = rows.next().map_err(failed)? {
        let id = row.get(0).map_err(failed)?;
        // A row whose key is not text cannot be read, so the key does not matter.
        let key = (text(row, 1).unwrap_or_default(), text(row, 2).unwrap_or_default());
        sorted.add(key, id, row.get(8).map_err(failed)?, || outbox_row(row));
    }
    Ok(sorted.finish())
}

fn outbox_row(row: &Row<'_>) -> Result<OutboxRow, StoreError> {
    let optional = |column| row.get::<_, Option<String>>(column).map_err(failed);
    let (operation, reason) = (text(row, 6)?, optional(4)?);
    let [state, role, info] = [optional(9)?, optional(10)?, optional(11)?];
    let columns = EventColumns {
        id: row.get(0).map_err(failed)?,
        operation: &operation,
        reason: reason.as_deref(),
        state: state.as_deref(),
        role: role.as_deref(),
        info: info.as_deref(),
    };
    let (change, info) = columns.read().map_err(unreadable)?;
    let waited: Option<f64> = row.get(5).map_err(failed)?;
    Ok(OutboxRow {
        id: row.get(0).map_err(failed)?,
        classroom: ClassroomId::parse(&text(row, 1)?).map_err(unreadable)?,
        agent: AgentId::parse(&text(row, 2)?).map_err(unreadable)?,
        session: SessionId(row.get(3).map_err(failed)?),
        change,
        info,
        nonce: Nonce(row.get(7).map_err(failed)?),
        trace: optional(12)?.as_deref().and_then(TraceParent::parse),
        waited: Duration::from_secs_f64(waited.unwrap_or_default()),
    })
}
