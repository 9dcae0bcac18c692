//! One connection to Redis, and how the pool makes and judges them.
//!
//! Invariant: the commands of all callers share it, pipelined, and its answers come in order; once an answer is missing,
//! the socket breaks, or the server says that it does not work ([`state`]), it is marked; the pool drops it and makes
//! another, for which the address is read and its name resolved again. The scripts are known to the server, and its time
//! to us, before it is used.
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bb8_redis::{
    bb8::ManageConnection,
    redis::{
        AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError,
        aio::MultiplexedConnection, io::tcp::TcpSettings,
    },
};
use tokio::time::Instant;

use super::state;
use rollcall_base::BackendUrl;

/// Commands that wait in one connection's queue, before callers wait.
const PIPELINED: usize = 1024;
/// How long a connection to a server that does not work is kept, so that refused callers do not make a connection each.
const KEPT: Duration = Duration::from_millis(250);

/// The hashes by which the server knows the scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) join: String,
    pub(super) remove: String,
    pub(super) repair: String,
    pub(super) mark: String,
}

/// The server's answer to TIME: seconds, and microseconds beyond them.
pub(super) type Time = (u64, u64);

/// What the server's clock said, and when we heard of it: since then it has gone on by at least as much as ours.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<(Instant, Duration)>>);

impl Clock {
    /// Takes over an answer that has just arrived.
    pub(super) fn heard(&self, (seconds, micros): Time) {
        let said = Duration::from_secs(seconds) + Duration::from_micros(micros);
        // An option is whole after any panic.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), said));
    }

    /// The server's time, in microseconds, at a moment that is not after `then`.
    pub(super) fn at(&self, then: Instant) -> u128 {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map_or(0, |(at, said)| (said + then.saturating_duration_since(at)).as_micros())
    }
}

impl Scripts {
    async fn load(connection: &mut MultiplexedConnection, clock: &Clock) -> Result<Self, RedisError> {
        let mut commands = Pipeline::with_capacity(5);
        let join = concat!(include_str!("entry.lua"), include_str!("join.lua"));
        let repair = concat!(include_str!("entry.lua"), include_str!("repair.lua"));
        for source in [join, include_str!("remove.lua"), repair, include_str!("mark.lua")] {
            commands.cmd("SCRIPT").arg("LOAD").arg(source);
        }
        commands.cmd("TIME");
        let (join, remove, repair, mark, time): (_, _, _, _, Time) = commands.query_async(connection).await?;
        clock.heard(time);
        Ok(Self { join, remove, repair, mark })
    }
}

/// A connection; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct RedisConnection {
    connection: MultiplexedConnection,
    broken: Arc<AtomicBool>,
    scripts: Arc<Scripts>,
    clock: Arc<Clock>,
    made: Instant,
}

impl RedisConnection {
    pub(super) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// Runs the commands in one round trip. A server that lost its scripts gets them again, which takes two more.
    pub(super) async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisError> {
        let mut connection = self.connection.clone();
        let mut outcome = commands.query_async(&mut connection).await;
        if matches!(&outcome, Err(error) if lacks_script(error)) {
            Scripts::load(&mut connection, &self.clock).await?;
            outcome = commands.query_async(&mut connection).await;
        }
        if matches!(&outcome, Err(error) if self.ends_by(error)) {
            self.abandon();
        }
        outcome
    }

    fn ends_by(&self, error: &RedisError) -> bool {
        let elsewhere = || state::of(error).is_some_and(|state| state.reconnect) && self.made.elapsed() >= KEPT;
        error.is_io_error() || error.is_unrecoverable_error() || elsewhere()
    }

    /// Marks it: nobody is to use it any more.
    pub(super) fn abandon(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// A script is unknown where the server was restarted or flushed of scripts; in a pipeline each command may say so.
fn lacks_script(error: &RedisError) -> bool {
    const CODE: &str = "NOSCRIPT";
    let among = |errors: Arc<[(usize, bb8_redis::redis::ServerError)]>| errors.iter().any(|(_, e)| e.code() == CODE);
    error.code() == Some(CODE) || error.clone().into_server_errors().is_some_and(among)
}

/// Makes connections to one address.
#[derive(Debug)]
pub(super) struct ConnectionManager {
    url: BackendUrl,
    timeout: Duration,
    clock: Arc<Clock>,
    /// Why the last connection was not made; the pool tells callers only that there is none.
    failure: Arc<Mutex<Option<String>>>,
}

impl ConnectionManager {
    /// `timeout` is how long connecting, and then the server's greeting, may take.
    pub(super) fn new(url: BackendUrl, timeout: Duration, clock: Arc<Clock>) -> Result<Self, RedisError> {
        client(url.reveal())?;
        Ok(Self { url, timeout, clock, failure: Arc::default() })
    }

    /// Where the reason is found why there is no connection.
    pub(super) fn failure(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.failure)
    }

    async fn open(&self) -> Result<RedisConnection, RedisError> {
        // Deadlines of calls are the caller's: they span the wait for a connection too.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINED);
        let client = client(self.url.current().await.reveal())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let scripts = tokio::time::timeout(self.timeout, Scripts::load(&mut connection, &self.clock));
        let scripts = scripts.await.map_err(|_| RedisError::from((ErrorKind::Io, "no greeting in time")))??;
        let clock = Arc::clone(&self.clock);
        Ok(RedisConnection {
            connection,
            broken: Arc::default(),
            scripts: Arc::new(scripts),
            clock,
            made: Instant::now(),
        })
    }
}

fn client(url: &str) -> Result<Client, RedisError> {
    let settings = TcpSettings::default().set_nodelay(true);
    Client::open(url.into_connection_info()?.set_tcp_settings(settings))
}

/// A server's error, with what an operator can do about it, where that is known.
pub(super) fn describe(error: &RedisError) -> String {
    match state::of(error) {
        Some(state) => format!("{error}; {}", state.hint),
        None => error.to_string(),
    }
}

impl ManageConnection for ConnectionManager {
    type Connection = RedisConnection;
    type Error = RedisError;

    async fn connect(&self) -> Result<RedisConnection, RedisError> {
        let connection = self.open().await;
        // An option is whole after any panic.
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = connection.as_ref().err().map(describe);
        connection
    }

    async fn is_valid(&self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        if connection.is_broken() { Err((ErrorKind::Io, "the connection broke").into()) } else { Ok(()) }
    }

    fn has_broken(&self, connection: &mut RedisConnection) -> bool {
        connection.is_broken()
    }
}
