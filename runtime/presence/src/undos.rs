//! What was cut off is undone by a task of its own, because the caller is gone.
//!
//! Invariant: such tasks are counted, and a drain waits for them. A connection has at most one for its lesson, and one for its
//! beginning.
use std::sync::Arc;

use rollcall_base::{log_limit::LogLimit, names};
use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

/// Starts these tasks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Undos {
    running: Arc<watch::Sender<usize>>,
    said: Arc<LogLimit>,
}

impl Undos {
    /// Starts one, inside a runtime.
    pub(crate) fn spawn(&self, undo: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let running = Running::begin(&self.running);
        tokio::spawn(async move {
            undo.await;
            drop(running);
        })
    }

    /// An attempt of one of them failed.
    pub(crate) fn failed(&self, error: &dyn std::error::Error) {
        if let Some(more) = self.said.pass() {
            warn!(%error, more, "an attempt to undo what was cut off failed");
        }
    }

    /// Waits until none is left.
    pub async fn finish(&self) {
        let mut running = self.running.subscribe();
        // This value owns the sender.
        let _ = running.wait_for(|running| *running == 0).await;
    }
}

/// Counts a task until it is dropped.
struct Running(Arc<watch::Sender<usize>>);

impl Running {
    fn begin(running: &Arc<watch::Sender<usize>>) -> Self {
        running.send_modify(|running| *running += 1);
        metrics::gauge!(names::UNDOS).increment(1.0);
        Self(Arc::clone(running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
        metrics::gauge!(names::UNDOS).decrement(1.0);
    }
}
