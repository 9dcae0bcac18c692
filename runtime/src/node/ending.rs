//! The end of a node. A signal, or a task that has ended, begins its drain. A second signal shortens the drain.
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

/// How long each task that ends after the drain may take.
const LAST_REQUESTS: Duration = Duration::from_millis(200);

/// How long a drain may take after a task of the node ended. The parts that need this task do not finish, however long
/// the drain takes.
const DRAIN_AFTER_FAILURE: Duration = Duration::from_secs(3);

/// The parts that the end of a node uses.
pub(super) struct Ending {
    /// The signals that begin the drain.
    pub signals: Signals,
    /// The node's tasks. If one of them ends, the drain begins, too.
    pub tasks: Tasks,
    /// The bus, whose tasks count as the node's tasks.
    pub bus: Arc<dyn Bus>,
    /// Set when the node is no longer ready.
    pub unready: Arc<AtomicBool>,
    /// Set when the drain begins.
    pub draining: watch::Sender<bool>,
    /// Set when the drain is over.
    pub over: watch::Sender<bool>,
    /// The drain.
    pub drain: Drain,
    /// The tasks that end after the drain: the operators' listener, and the senders of events to other services.
    pub last: Vec<JoinHandle<()>>,
}

impl Ending {
    /// Waits until the node must end, and ends it. Returns the task whose end was the reason, if there is one.
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
            // Clients are told if that still works. Other nodes end the sessions that this node cannot end.
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
        // The drain's deadline applies to these tasks, too. A task that is not done by now is cancelled.
        for task in self.last {
            let _ = timeout(LAST_REQUESTS, task).await;
        }
        failed
    }
}
