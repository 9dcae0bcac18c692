//! The end of a node: a signal, or a task that has ended, begins its drain; a second signal cuts the drain short.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tracing::{error, info};

use super::{drain::Drain, gauges, signals::Signals};
use rollcall_base::tasks::{TaskEnded, Tasks};
use rollcall_bus::Bus;

/// How long what ends after the drain may take, each.
const LAST_REQUESTS: Duration = Duration::from_millis(200);

/// How long a drain may take after a task of the node ended: what depends on that task is not done however long we
/// wait.
const DRAIN_AFTER_FAILURE: Duration = Duration::from_secs(3);

/// What the end of a node needs.
pub(super) struct Ending {
    /// Begin the drain.
    pub signals: Signals,
    /// The node's tasks; one that ends begins the drain, too.
    pub tasks: Tasks,
    /// The bus, whose tasks count as the node's.
    pub bus: Arc<dyn Bus>,
    /// Set when the node is no longer ready.
    pub unready: Arc<AtomicBool>,
    /// Set when the drain begins.
    pub draining: watch::Sender<bool>,
    /// Set when the drain is over.
    pub over: watch::Sender<bool>,
    /// The drain.
    pub drain: Drain,
    /// Tasks that end after the drain: the operators' listener, and what sends events to other services.
    pub last: Vec<JoinHandle<()>>,
}

impl Ending {
    /// Waits until the node is to end, and ends it. Returns the task whose end was the reason, if one was.
    pub async fn run(mut self) -> Option<TaskEnded> {
        let failed = tokio::select! {
            () = self.signals.next() => None,
            ended = self.drain.store.failed() => Some(ended),
            ended = self.bus.failed() => Some(ended),
            ended = self.tasks.failed() => Some(ended),
        };
        let presence = &mut self.drain.presence;
        if let Some(ended) = &failed {
            error!(task = ended.task, "{ended}: this node drains and ends, because it cannot work without it");
            // Clients are told where that still works; other nodes end the sessions that this one cannot.
            presence.drain_deadline = presence.drain_deadline.min(DRAIN_AFTER_FAILURE);
            presence.drain_spread = presence.drain_spread.min(presence.drain_deadline / 4);
        }
        let (delay, deadline) = (presence.drain_delay, presence.drain_deadline);
        self.unready.store(true, Ordering::Relaxed);
        gauges::drains_within(delay + deadline);
        if !delay.is_zero() {
            info!(
                ?delay,
                "not ready, and taking connections until the drain begins; a second signal begins it at once"
            );
            let _ = timeout(delay, self.signals.next()).await;
        }
        gauges::drains_within(deadline);
        self.draining.send_replace(true);
        tokio::select! {
            () = self.drain.run() => {}
            () = self.signals.next() => {
                info!("a second signal: ending at once");
                return failed;
            }
        }
        self.over.send_replace(true);
        // The drain deadline holds for these too: what is not done by now is cut off.
        for task in self.last {
            let _ = timeout(LAST_REQUESTS, task).await;
        }
        failed
    }
}
