//! The outbox, read by one relay of this process at a time.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::{Connection, Params, params};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    time::timeout,
};

use super::{
    SqliteStore,
    db_thread::{DbThread, failed},
    read,
};
use crate::{
    Outbox, OutboxRow, StoreError,
    aside::{PUT_BACK_MOST, RETRY_ASIDE},
};

/// How often rows are set aside before a read gives up for this time.
const READS: usize = 8;

const DELETE: &str = "delete from outbox where id = ?1";
const SET_ASIDE: &str = "insert into outbox_quarantine (id, classroom_id, agent_id, session_id, operation, reason, nonce, \
    created_at, why, retry_at) select id, classroom_id, agent_id, session_id, operation, reason, nonce, created_at, ?2, \
    strftime('%Y-%m-%d %H:%M:%f', 'now', ?3) from outbox where id = ?1";
const DUE: &str = "select distinct classroom_id, agent_id from (select classroom_id, agent_id from outbox_quarantine \
    where retry_at <= strftime('%Y-%m-%d %H:%M:%f', 'now') order by retry_at limit ?1)";
/// Under their old ids, so that those that come later stay behind them.
const PUT_BACK: &str = "insert into outbox (id, classroom_id, agent_id, session_id, operation, reason, nonce, created_at) \
    select id, classroom_id, agent_id, session_id, operation, reason, nonce, created_at from outbox_quarantine \
    where classroom_id = ?1 and agent_id = ?2";
const FORGET_ASIDE: &str = "delete from outbox_quarantine where classroom_id = ?1 and agent_id = ?2";
const ASIDE_ROWS: &str = "select count(*) from (select 1 from outbox_quarantine limit 10000)";

fn run(connection: &Connection, sql: &str, values: impl Params) -> Result<(), StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(drop).map_err(failed)
}

pub(super) struct SqliteOutbox {
    writer: DbThread,
    reader: DbThread,
    relay: Arc<Mutex<()>>,
    claimed: Option<OwnedMutexGuard<()>>,
    changed: watch::Receiver<u64>,
}

impl SqliteOutbox {
    pub(super) fn new(store: &SqliteStore) -> Self {
        Self {
            writer: store.writer.clone(),
            reader: store.reader.clone(),
            relay: store.relay.clone(),
            claimed: None,
            changed: store.wake.subscribe(),
        }
    }
}

#[async_trait]
impl Outbox for SqliteOutbox {
    /// All of it is one shard.
    async fn claim(&mut self) -> Result<usize, StoreError> {
        if self.claimed.is_none() {
            self.claimed = self.relay.clone().try_lock_owned().ok();
        }
        Ok(usize::from(self.claimed.is_some()))
    }

    async fn read(&mut self, most: usize) -> Result<Vec<OutboxRow>, StoreError> {
        for _ in 0..READS {
            if self.claimed.is_none() {
                break;
            }
            let read = self.reader.call("outbox_read", move |connection| read::outbox(connection, most));
            let (rows, aside) = read.await?;
            for (ids, why) in &aside {
                self.quarantine(ids, why).await?;
            }
            if !rows.is_empty() || aside.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    async fn quarantine(&mut self, ids: &[i64], why: &str) -> Result<(), StoreError> {
        let (ids, why) = (ids.to_vec(), why.to_owned());
        let later = format!("+{} seconds", RETRY_ASIDE.as_secs());
        let work = move |connection: &Connection| {
            for id in ids {
                run(connection, SET_ASIDE, params![id, why, later])?;
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
        // Most of the time there is nothing, and a write would be a commit in vain.
        let count = |connection: &Connection| {
            connection.query_row(ASIDE_ROWS, [], |row| row.get::<_, u32>(0)).map(u64::from).map_err(failed)
        };
        if self.reader.call("outbox_quarantine", count).await? == 0 {
            return Ok(0);
        }
        let work = move |connection: &Connection| {
            let due: Vec<(String, String)> = read::rows(connection, DUE, [read::whole(PUT_BACK_MOST)], |row| {
                Ok((read::text(row, 0)?, read::text(row, 1)?))
            })?;
            for (classroom, agent) in due {
                run(connection, PUT_BACK, [&classroom, &agent])?;
                run(connection, FORGET_ASIDE, [&classroom, &agent])?;
            }
            count(connection)
        };
        self.writer.call("outbox_put_back", work).await
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        let delete = move |connection: &Connection| ids.iter().try_for_each(|id| run(connection, DELETE, [id]));
        self.writer.call("outbox_delete", delete).await
    }

    async fn wait(&mut self, most: Duration) -> Result<(), StoreError> {
        // The end of the wait, and an end of the store, are both a reason to look.
        timeout(most, self.changed.changed()).await.ok();
        Ok(())
    }
}
