//! One connection to a Redis server, and how the pool makes and judges them.
//!
//! Invariant: all callers share a connection; their commands are pipelined, and the answers come in order. When an
//! answer is missing, the socket breaks, or the server says that it does not work ([`state`]), the connection is marked
//! as broken. The pool then drops it and makes another, for which the address is read, Sentinel is asked and the name
//! is resolved again. Before a connection is used, the server knows the scripts, and this process knows the server's
//! time.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bb8_redis::{
    bb8::ManageConnection,
    redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{
    address::{Endpoint, Servers},
    clock::Clock,
    dial::{ConnectError, Dialer, Line, connect_error, connect_error_without_tls},
    scripts::{Scripts, lacks_script},
    sentinel, state,
};

/// How long a connection to a server that does not work is kept, so that refused callers do not each make a new
/// connection.
const KEPT: Duration = Duration::from_millis(250);

/// A connection to a server. All clones of the value use the same connection.
#[derive(Clone, Debug)]
pub(super) struct RedisConnection {
    line: Line,
    broken: Arc<AtomicBool>,
    scripts: Arc<Scripts>,
    clock: Arc<Clock>,
    made: Instant,
}

impl RedisConnection {
    pub(super) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// Runs the commands in one round trip. If the server has lost the scripts, it gets them again, which takes two
    /// more round trips.
    pub(super) async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisError> {
        let mut connection = self.line.connection.clone();
        let mut outcome = commands.query_async(&mut connection).await;
        if matches!(&outcome, Err(error) if lacks_script(error)) {
            Scripts::load(&mut connection, &self.clock).await?;
            outcome = commands.query_async(&mut connection).await;
        }
        if let Err(error) = &outcome {
            self.judge(error);
        }
        outcome
    }

    /// Runs the commands in one round trip, and returns the answer to each. If the server has lost the scripts, it has
    /// them again afterwards.
    pub(super) async fn run_each(&self, mut commands: Pipeline) -> Result<Vec<RedisResult<Value>>, RedisError> {
        commands.ignore_errors();
        let answers: Vec<RedisResult<Value>> = self.run(&commands).await?;
        let refusals = || answers.iter().filter_map(|answer| answer.as_ref().err());
        refusals().for_each(|error| self.judge(error));
        if refusals().any(lacks_script) {
            Scripts::load(&mut self.line.connection.clone(), &self.clock).await?;
        }
        Ok(answers)
    }

    /// Marks the connection as broken if the error says that another connection may succeed.
    fn judge(&self, error: &RedisError) {
        let elsewhere = || state::of(error).is_some_and(|state| state.reconnect) && self.made.elapsed() >= KEPT;
        if error.is_io_error() || error.is_unrecoverable_error() || elsewhere() {
            self.abandon();
        }
    }

    /// Marks the connection as broken, so that no caller uses it any more.
    pub(super) fn abandon(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Makes connections to one server, for the pool.
pub(super) struct ConnectionManager {
    dialer: Arc<Dialer>,
    /// A node of a cluster. `None` means the server of the URL, or the master that Sentinel names.
    node: Option<Endpoint>,
    timeout: Duration,
    clock: Arc<Clock>,
    /// Why the last connection could not be made. The pool only tells callers that there is none.
    failure: Arc<Mutex<Option<ConnectError>>>,
}

impl ConnectionManager {
    /// Creates a manager. `timeout` limits the time for connecting and the server's greeting.
    pub(super) fn new(dialer: Arc<Dialer>, node: Option<Endpoint>, timeout: Duration, clock: Arc<Clock>) -> Self {
        Self { dialer, node, timeout, clock, failure: Arc::default() }
    }

    /// Returns the place of the reason why there is no connection.
    pub(super) fn failure(&self) -> Arc<Mutex<Option<ConnectError>>> {
        Arc::clone(&self.failure)
    }

    async fn open(&self) -> Result<RedisConnection, ConnectError> {
        let url = self.dialer.url().await?;
        let endpoint = match (&self.node, &url.servers) {
            (Some(node), _) => node.clone(),
            (None, Servers::Sentinel { service, access }) => {
                sentinel::master(&self.dialer, &url, (service, access)).await?
            }
            (None, _) => url.endpoints[0].clone(),
        };
        let mut line = self.dialer.dial(&endpoint, &url.access, url.tls).await?;
        let explain = if url.tls { connect_error } else { connect_error_without_tls };
        let scripts = Scripts::load(&mut line.connection, &self.clock).await.map_err(|error| explain(&error))?;
        let clock = Arc::clone(&self.clock);
        Ok(RedisConnection { line, broken: Arc::default(), scripts: Arc::new(scripts), clock, made: Instant::now() })
    }
}

impl ManageConnection for ConnectionManager {
    type Connection = RedisConnection;
    type Error = ConnectError;

    async fn connect(&self) -> Result<RedisConnection, ConnectError> {
        let connection = timeout(self.timeout, self.open()).await.unwrap_or_else(|_| {
            // A server waits for the rest of a message that it cannot read, so a wrong choice about TLS shows as
            // silence.
            let (tls, scheme) = if self.dialer.first().tls { ("no TLS", "redis") } else { ("TLS", "rediss") };
            let hint = format!("if it speaks {tls}, let REDIS_URL begin with {scheme}");
            Err(ConnectError(format!("no greeting within {:?}; {hint}", self.timeout)))
        });
        *self.failure.lock() = connection.as_ref().err().cloned();
        connection
    }

    async fn is_valid(&self, connection: &mut RedisConnection) -> Result<(), ConnectError> {
        if connection.is_broken() { Err(ConnectError("the connection broke".into())) } else { Ok(()) }
    }

    fn has_broken(&self, connection: &mut RedisConnection) -> bool {
        connection.is_broken()
    }
}
