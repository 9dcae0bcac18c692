//! Publishes in order, with many acknowledgements outstanding.
//!
//! Invariant: Ok means stored. A message that failed may have been stored, so it is published again under the same
//! message id.
use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    CALL_TIMEOUT, NatsError,
    in_flight::{Outcome, Request},
    message::away,
    publish_connection::PublishConnection,
    servers::Servers,
};
use crate::Publication;
use rollcall_base::{names, since::Since, tasks::Tasks};

/// The maximum number of requests that wait for the connection. Further callers wait for a free place, within
/// [`CALL_TIMEOUT`].
const MAX_WAITING: usize = 64;

/// The names of a publisher's connection and task.
pub(super) struct Names {
    /// The connection's name, which the NATS server shows.
    pub(super) connection: &'static str,
    /// The task's name, which is reported if it ends.
    pub(super) task: &'static str,
}

pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    /// When the stream last stored a message of this node.
    stored: Mutex<Option<Instant>>,
}

impl Publisher {
    /// Opens a connection and starts its task, which ends with `tasks`.
    pub(super) async fn start(
        servers: &Servers,
        Names { connection: name, task }: Names,
        supervisor: &Tasks,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, NatsError> {
        let connection = servers.open(name).await?;
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let connection_task = PublishConnection::new(servers.clone(), name, waiting);
        tasks.spawn(supervisor.supervise(task, connection_task.run(connection)));
        Ok(Self { requests, stored: Mutex::default() })
    }

    /// Publishes messages. Returns one result for each, in order.
    pub(super) async fn publish(&self, batch: Vec<Publication>) -> Vec<Outcome> {
        let count = batch.len();
        let (answer, answered) = oneshot::channel();
        let request = Request { batch, since: Since::now(), answer };
        let all = async {
            self.requests.send(request).await.ok()?;
            answered.await.ok()
        };
        let results = timeout(CALL_TIMEOUT, all).await.ok().flatten();
        let results = results.unwrap_or_else(|| vec![Err(away("no acknowledgement in time")); count]);
        if results.iter().any(Result::is_ok) {
            *self.stored.lock() = Some(Instant::now());
        }
        let failed = results.iter().filter(|result| matches!(result, Err(error) if !error.is_behind())).count();
        if failed > 0 {
            let errors = metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "publish");
            errors.increment(failed as u64);
        }
        results
    }

    /// Returns whether the stream stored a message of this node within this time.
    pub(super) fn stored_within(&self, time: Duration) -> bool {
        let stored = *self.stored.lock();
        stored.is_some_and(|at| at.elapsed() < time)
    }
}
