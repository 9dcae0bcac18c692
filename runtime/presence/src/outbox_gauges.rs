//! How much waits in the outbox, measured when somebody asks for the metrics: a node whose metrics nobody reads, or only
//! now and then, costs the database nothing for them.
use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::debug;

use rollcall_base::names;
use rollcall_store::Store;

/// For so long a measurement is good enough.
const GOOD_FOR: Duration = Duration::from_millis(500);
/// How long whoever asks waits for one; it goes on, and the next one gets it.
const WAIT: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct OutboxGauges {
    store: Arc<dyn Store>,
    /// Held while one is under way; when the latest ended.
    measured: Arc<Mutex<Option<Instant>>>,
}

impl OutboxGauges {
    /// Measures nothing yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, measured: Arc::default() }
    }

    /// Writes the gauges, unless that was done a moment ago or is being done.
    pub async fn measure(&self) {
        let Ok(mut measured) = Arc::clone(&self.measured).try_lock_owned() else { return };
        if measured.is_some_and(|at| at.elapsed() < GOOD_FOR) {
            return;
        }
        let store = Arc::clone(&self.store);
        let measuring = tokio::spawn(async move {
            match store.backlog().await {
                Ok(backlog) => {
                    metrics::gauge!(names::OUTBOX_ROWS).set(backlog.rows as f64);
                    metrics::gauge!(names::OUTBOX_LAG).set(backlog.lag.as_secs_f64());
                }
                Err(error) => debug!(%error, "the outbox's gauges are not up to date"),
            }
            *measured = Some(Instant::now());
        });
        let _ = timeout(WAIT, measuring).await;
    }
}
