//! Deletes history that is older than the operator keeps.
//!
//! Invariant: joins and leaves are hardly slower. A batch is small and on a connection of its own, there is a pause
//! after each batch, and only one node deletes at a time.
use std::{sync::Arc, time::Duration};

use rollcall_base::names;
use rollcall_schema::SessionId;
use rollcall_store::{HistorySweep, Store};
use tokio::time::sleep;
use tracing::{info, warn};

/// How many rows one batch checks.
const BATCH: usize = 500;
/// The pause between two batches.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause between two sweeps, and after a failure.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The task that deletes old history.
pub struct HistoryRetention {
    /// The store of the history.
    pub store: Arc<dyn Store>,
    /// How long a row is kept after the session's end.
    pub keep: Duration,
}

impl HistoryRetention {
    /// Sweeps until the task is dropped.
    pub async fn run(self) {
        loop {
            let deleted = self.sweep().await;
            if deleted > 0 {
                info!(rows = deleted, "deleted old history");
            }
            sleep(SWEEP_EVERY).await;
        }
    }

    /// Deletes all old rows, the oldest first. Returns their number.
    async fn sweep(&self) -> u64 {
        let (mut after, mut all) = (SessionId(0), 0);
        loop {
            match self.store.sweep_history(self.keep, after, BATCH).await {
                Ok(Some(HistorySweep { deleted, next })) => {
                    metrics::counter!(names::HISTORY_DELETED).increment(deleted);
                    all += deleted;
                    let Some(next) = next else { return all };
                    after = next;
                }
                Ok(None) => return all,
                Err(error) => {
                    warn!(%error, "old history is deleted later");
                    return all;
                }
            }
            sleep(PAUSE).await;
        }
    }
}
