//! Publishing: in order, with many acknowledgements outstanding.
//!
//! Invariant: Ok means stored. A message that failed may have been stored all the same, so it is published again under
//! the same message id.
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    CALL_TIMEOUT,
    connection::NatsConnection,
    in_flight::{Outcome, Request},
    message::away,
    publish_connection::PublishConnection,
    servers::Servers,
};
use crate::Publication;
use rollcall_base::{names, tasks::Tasks};

/// How many requests wait for the connection; further callers wait too, within [`CALL_TIMEOUT`].
const MAX_WAITING: usize = 64;

pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    /// When the stream last stored something of this node.
    stored: Mutex<Option<Instant>>,
}

impl Publisher {
    /// Starts on this connection; the task ends with `tasks`.
    pub(super) fn start(
        servers: Servers,
        connection: NatsConnection,
        supervisor: &Tasks,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let connection_task = PublishConnection::new(servers, waiting);
        tasks.spawn(supervisor.supervise("publishing to NATS", connection_task.run(connection)));
        Self { requests, stored: Mutex::default() }
    }

    /// One result for each message, in order.
    pub(super) async fn publish(&self, batch: Vec<Publication>) -> Vec<Outcome> {
        let count = batch.len();
        let (answer, answered) = oneshot::channel();
        let request = Request { batch, since: Instant::now(), wall: SystemTime::now(), answer };
        let all = async {
            self.requests.send(request).await.ok()?;
            answered.await.ok()
        };
        let results = timeout(CALL_TIMEOUT, all).await.ok().flatten();
        let results = results.unwrap_or_else(|| vec![Err(away("no acknowledgement in time")); count]);
        if results.iter().any(Result::is_ok) {
            *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let failed = results.iter().filter(|result| matches!(result, Err(error) if !error.is_behind())).count();
        if failed > 0 {
            let errors = metrics::counter!(names::BACKEND_ERRORS, "backend" => "nats", "operation" => "publish");
            errors.increment(failed as u64);
        }
        results
    }

    /// Whether the stream stored something of this node within this time.
    pub(super) fn stored_within(&self, time: Duration) -> bool {
        let stored = *self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.is_some_and(|at| at.elapsed() < time)
    }
}
