//! Tasks that undo a call that was cut off, because its caller is gone.
//!
//! Invariant: the tasks are counted, and a drain waits for them. A connection has at most one for its lesson, and one
//! for its connect.
use std::sync::Arc;

use rollcall_base::{log_limit::LogLimit, names};
use tokio::{sync::watch, task::JoinHandle};
use tracing::warn;

/// Starts tasks that undo calls that were cut off. The value is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Undos {
    running: Arc<watch::Sender<usize>>,
    said: Arc<LogLimit>,
}

impl Undos {
    /// Starts a task. The caller must be inside a runtime.
    pub(crate) fn spawn(&self, undo: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let running = Running::begin(&self.running);
        tokio::spawn(async move {
            undo.await;
            drop(running);
        })
    }

    /// Counts and logs that an attempt of a task failed.
    pub(crate) fn failed(&self, error: &dyn std::error::Error) {
        if let Some(more) = self.said.pass() {
            warn!(%error, more, "an attempt to undo what was cut off failed");
        }
    }

    /// Waits until no task is left.
    pub async fn finish(&self) {
        let mut running = self.running.subscribe();
        // An error is not possible, because this value owns the sender.
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
