//! Deletes history that is older than the operator keeps.
//!
//! Invariant: joins and leaves hardly notice. A batch is small and on a connection of its own, there is a pause after each,
//! and one node at a time deletes.
use std::{sync::Arc, time::Duration};

use rollcall_base::names;
use rollcall_schema::SessionId;
use rollcall_store::{HistorySweep, Store};
use tokio::time::sleep;
use tracing::{info, warn};

/// Rows that one batch looks at.
const BATCH: usize = 500;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause between two sweeps, and after a failure.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What it needs.
pub struct HistoryRetention {
    /// Where the history is.
    pub store: Arc<dyn Store>,
    /// How long a session's row is kept after its end.
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

    /// One pass, from the oldest row on.
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
