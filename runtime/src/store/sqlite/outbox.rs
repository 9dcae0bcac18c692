//! The outbox, read by one relay of this process at a time.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    time::timeout,
};

use super::{
    SqliteStore,
    desk::{Desk, failed},
    read,
};
use crate::store::{Outbox, OutboxRow, StoreError};

pub(super) struct SqliteOutbox {
    writer: Desk,
    reader: Desk,
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
        if self.claimed.is_none() {
            return Ok(Vec::new());
        }
        self.reader.call("outbox_read", move |connection| read::outbox(connection, most)).await
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        let delete = move |connection: &rusqlite::Connection| {
            let mut delete = connection.prepare_cached("delete from outbox where id = ?1").map_err(failed)?;
            ids.iter().try_for_each(|id| delete.execute([id]).map(drop).map_err(failed))
        };
        self.writer.call("outbox_delete", delete).await
    }

    async fn wait(&mut self, most: Duration) -> Result<(), StoreError> {
        // The end of the wait, and an end of the store, are both a reason to look.
        timeout(most, self.changed.changed()).await.ok();
        Ok(())
    }
}
