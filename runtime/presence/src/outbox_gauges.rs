//! The gauges that say how much waits in the outbox.
//!
//! Invariant: the database is only asked when a client reads the metrics or the console, and by one call at a time,
//! however many clients read them.
use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::debug;

use rollcall_base::names;
use rollcall_store::Store;

/// How long a measurement is used.
const GOOD_FOR: Duration = Duration::from_millis(500);
/// How long a caller waits for a measurement. The measurement goes on, and the next caller gets it.
const WAIT: Duration = Duration::from_secs(1);

/// The outbox's gauges. It is cheap to clone.
#[derive(Clone)]
pub struct OutboxGauges {
    store: Arc<dyn Store>,
    /// When the last measurement ended. It is locked while one runs.
    measured: Arc<Mutex<Option<Instant>>>,
}

impl OutboxGauges {
    /// Creates gauges that are not measured yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, measured: Arc::default() }
    }

    /// Writes the gauges, unless they were measured a moment ago or are being measured.
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
