//! A node's report about itself for the console: its connections, rates, times and load, now and in the last fifteen
//! minutes. Each node writes its report beside its lease, so that every node can show all reports.
//!
//! Invariant: a report has at most [`MAX_BYTES`] of JSON. While no console is open, the metrics are read only every
//! [`EVERY`].
mod past;
mod reading;
mod report;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rollcall_store::Store;

use self::{past::Past, reading::Reading, report::Report};
use crate::metrics::Metrics;

/// The largest report, in bytes.
pub const MAX_BYTES: usize = 4096;
/// The time between two readings while no console is open.
const EVERY: Duration = Duration::from_secs(5);

/// This node's statistics. They are cheap to clone.
#[derive(Clone)]
pub struct Statistics {
    metrics: Metrics,
    draining: Arc<AtomicBool>,
    past: Arc<Mutex<Past>>,
    started: Instant,
}

impl Statistics {
    /// Creates statistics that read these metrics. The node sets `draining` when it shuts down.
    #[must_use]
    pub fn new(metrics: Metrics, draining: Arc<AtomicBool>) -> Self {
        Self { metrics, draining, past: Arc::default(), started: Instant::now() }
    }

    /// Returns the current report as JSON.
    #[must_use]
    pub fn read(&self) -> String {
        let reading = Reading::parse(self.started.elapsed(), &self.metrics.render());
        let mut past = self.past.lock();
        past.add(reading);
        Report::new(&past, self.draining.load(Ordering::Relaxed)).json()
    }

    /// Gives reports to the store, which writes them when it renews the lease. This function never returns, so the
    /// caller spawns it.
    pub async fn run(self, store: Arc<dyn Store>) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            store.report(self.read());
        }
    }
}
