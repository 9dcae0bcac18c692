//! Configuration: the command line and the environment, read once into checked values (PROTOCOL 7).
//!
//! Invariant: a [`Config`] that exists is free of contradictions; secrets in it print as dots.
mod cli;
mod gate;
pub mod names;
mod source;
mod value;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use clap::ArgMatches;
use hyper::Uri;
use rollcall_schema::Audience;

pub use cli::{FAULTY, LoadArgs, Stop, Task, TokenArgs, parse};
pub use gate::{EventRates, Gate};
use rollcall_base::{BackendUrl, Secret};
pub use source::{Environment, Fault};

use crate::auth::{Location, Sources, development_secret};
use source::Source;

/// The shortest lease: a pulse and its answer must fit into it several times.
const SHORTEST_LEASE: Duration = Duration::from_millis(500);

/// Where sessions and lessons are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file of this process.
    Sqlite(PathBuf),
    /// PostgreSQL.
    Postgres(BackendUrl),
}

/// Where things are kept.
#[derive(Clone, Debug)]
pub struct Backends {
    /// SQL.
    pub database: Database,
    /// Keys; none: in process.
    pub redis: Option<BackendUrl>,
    /// What every key starts with.
    pub redis_prefix: String,
    /// The bus; none: in process.
    pub nats: Option<BackendUrl>,
    /// Connections to PostgreSQL.
    pub postgres_pool: usize,
}

impl Backends {
    /// Whether this node must be the only one: its keys or its bus are not seen by others.
    #[must_use]
    pub fn standalone(&self) -> bool {
        self.redis.is_none() || self.nats.is_none()
    }
}

/// What tokens are checked with.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The shared secret.
    pub hs256: Option<Secret>,
    /// The one before it.
    pub hs256_previous: Option<Secret>,
    /// Issuers with keys of their own.
    pub jwks: Vec<(String, Location)>,
    /// Between two loads of those.
    pub refresh: Duration,
    /// Between two that unknown keys cause.
    pub cooldown: Duration,
    /// How far an issuer's clock may be ahead of ours.
    pub leeway: Duration,
    /// Who is let in; empty: any.
    pub audiences: Vec<Audience>,
    /// No key is configured: the file of the secret made for a first run.
    pub development: Option<PathBuf>,
}

/// Leases, leaving, shutting down.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    /// How long a node counts as alive without a pulse.
    pub lease: Duration,
    /// How long a broken connection may come back unnoticed.
    pub leave_grace: Duration,
    /// How many such connections are waited for at most; none: a part of the connections.
    pub max_in_grace: Option<usize>,
    /// How long a node that is to end still takes connections.
    pub drain_delay: Duration,
    /// How long a shutdown may take after that.
    pub drain_deadline: Duration,
    /// Over how long it spreads what it tells its clients.
    pub drain_spread: Duration,
}

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between two pings.
    pub ping_interval: Duration,
    /// From a ping to any frame.
    pub pong_timeout: Duration,
    /// From the upgrade to connect_request.
    pub connect_timeout: Duration,
    /// For one run of a function.
    pub handler_timeout: Duration,
    /// For the head of a request.
    pub head_timeout: Duration,
    /// Of the head of a request, in bytes.
    pub head: usize,
    /// Of a message, in bytes.
    pub message: usize,
    /// Of a message.
    pub fragments: usize,
    /// Of requests that wait, in bytes.
    pub pending: usize,
    /// Of what waits for a slow reader, in bytes.
    pub queue: usize,
    /// The kernel's send buffer, in bytes.
    pub send_buffer: usize,
    /// Of an event that is forwarded, in bytes.
    pub forward: usize,
    /// Over how long connections are closed whose events are gone for good.
    pub reset_spread: Duration,
}

/// Mixpanel.
#[derive(Clone, Debug)]
pub struct Mixpanel {
    /// The project's token.
    pub token: Secret,
    /// Where events go.
    pub url: Uri,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// For clients.
    pub listen: SocketAddr,
    /// For operators.
    pub admin_listen: SocketAddr,
    /// Bearer token for /api.
    pub admin_token: Option<Secret>,
    /// Names under which the operators' address answers without it, besides addresses and localhost.
    pub admin_hosts: Vec<String>,
    /// SQL, keys, bus.
    pub backends: Backends,
    /// Tokens.
    pub keys: Keys,
    /// Whether clients may come without a token.
    pub guests: bool,
    /// Leases and leaving.
    pub presence: Presence,
    /// Limits.
    pub limits: Limits,
    /// Who may connect at all.
    pub gate: Gate,
    /// Worker threads.
    pub workers: usize,
    /// Mixpanel, where it is wanted.
    pub mixpanel: Option<Mixpanel>,
    /// The log's filter.
    pub log: String,
}

impl Config {
    fn read(command: &Task, flags: &ArgMatches, environment: Environment<'_>) -> Result<Self, Vec<Fault>> {
        let mut source = Source::new(flags, environment);
        let listen = source.value(&names::LISTEN, value::address);
        let admin_listen = source.value(&names::ADMIN_LISTEN, value::address);
        let backends = backends(&mut source);
        let config = Self {
            keys: keys(&mut source, command, listen, &backends.database),
            admin_token: source.secret(&names::ADMIN_TOKEN),
            admin_hosts: admin_hosts(&mut source),
            guests: source.value(&names::GUESTS, value::switch),
            presence: presence(&mut source),
            limits: limits(&mut source),
            gate: Gate::read(&mut source),
            workers: match source.value(&names::WORKERS, value::count(0)) {
                0 => std::thread::available_parallelism().map_or(1, Into::into),
                workers => workers,
            },
            mixpanel: mixpanel(&mut source),
            log: source.value(&names::LOG, log),
            listen,
            admin_listen,
            backends,
        };
        if !admin_listen.ip().is_loopback()
            && config.admin_token.is_none()
            && matches!(command, Task::Serve | Task::Check)
        {
            source.fault(&names::ADMIN_TOKEN, format!("is needed, because others can reach {admin_listen}"));
        }
        if source.faults.is_empty() { Ok(config) } else { Err(source.faults) }
    }

    /// What the keyring is made of; on a first run the development secret is made here.
    ///
    /// # Errors
    /// Where that secret's file cannot be made or read.
    pub fn sources(&self) -> io::Result<Sources> {
        let keys = &self.keys;
        let hs256 = match &keys.development {
            Some(path) => Some(development_secret(path).map_err(|error| {
                io::Error::new(error.kind(), format!("the development secret {}: {error}", path.display()))
            })?),
            None => keys.hs256.clone(),
        };
        let (jwks, audiences) = (keys.jwks.clone(), keys.audiences.clone());
        let hs256_previous = keys.hs256_previous.clone();
        let (refresh, cooldown, leeway) = (keys.refresh, keys.cooldown, keys.leeway);
        Ok(Sources { hs256, hs256_previous, jwks, audiences, refresh, cooldown, leeway })
    }
}

fn backends(source: &mut Source<'_>) -> Backends {
    Backends {
        database: source.address_or_default(&names::DATABASE_URL, value::database),
        redis: source.address(&names::REDIS_URL, value::redis),
        redis_prefix: source.optional(&names::REDIS_PREFIX, value::prefix).unwrap_or_default(),
        nats: source.address(&names::NATS_URL, value::nats),
        postgres_pool: source.value(&names::POSTGRES_POOL, value::count(1)),
    }
}

fn keys(source: &mut Source<'_>, command: &Task, listen: SocketAddr, database: &Database) -> Keys {
    let faults = source.faults.len();
    let hs256 = source.secret(&names::HS256_SECRET);
    let hs256_previous = source.secret(&names::HS256_PREVIOUS_SECRET);
    if hs256_previous.is_some() && hs256.is_none() {
        source.fault(&names::HS256_PREVIOUS_SECRET, format!("is of no use without {}", names::HS256_SECRET.name));
    }
    let jwks = source.optional(&names::JWKS, |text| value::list(text, value::issuer)).unwrap_or_default();
    let mut seen = std::collections::HashSet::new();
    for (issuer, _) in &jwks {
        if !seen.insert(issuer) {
            source.fault(&names::JWKS, format!("names the issuer {issuer:?} twice"));
        }
    }
    let configured = hs256.is_some() || !jwks.is_empty() || source.faults.len() > faults;
    let needed = matches!(command, Task::Serve | Task::Check | Task::Token(_));
    if !configured && needed && !listen.ip().is_loopback() {
        let problem = format!("no key is configured, and others can reach {listen}: set this, or {}", names::JWKS.name);
        source.fault(&names::HS256_SECRET, problem);
    }
    let beside = match database {
        Database::Sqlite(path) => {
            let mut path = path.clone().into_os_string();
            path.push(".secret");
            PathBuf::from(path)
        }
        Database::Postgres(_) => PathBuf::from("rollcall.secret"),
    };
    Keys {
        development: (!configured).then_some(beside),
        hs256,
        hs256_previous,
        jwks,
        cooldown: source.value(&names::JWKS_COOLDOWN, value::time_limit),
        leeway: source.value(&names::TOKEN_LEEWAY, value::duration),
        refresh: source.value(&names::JWKS_REFRESH, value::time_limit),
        audiences: source.optional(&names::AUDIENCES, |text| value::list(text, value::audience)).unwrap_or_default(),
    }
}

fn presence(source: &mut Source<'_>) -> Presence {
    let drain_deadline = source.value(&names::DRAIN_DEADLINE, value::time_limit);
    Presence {
        lease: source.value(&names::LEASE, |text| match value::duration(text)? {
            lease if lease < SHORTEST_LEASE => Err(format!("{text:?} is too short, at least 500ms")),
            lease => Ok(lease),
        }),
        leave_grace: source.value(&names::LEAVE_GRACE, value::duration),
        max_in_grace: Some(source.value(&names::MAX_IN_GRACE, value::count(0))).filter(|max| *max > 0),
        drain_delay: source.value(&names::DRAIN_DELAY, value::duration),
        drain_deadline,
        drain_spread: source.value(&names::DRAIN_SPREAD, value::duration).min(drain_deadline / 2),
    }
}

fn limits(source: &mut Source<'_>) -> Limits {
    let mut time = |setting| source.value(setting, value::time_limit);
    let (ping_interval, pong_timeout) = (time(&names::PING_INTERVAL), time(&names::PONG_TIMEOUT));
    let (connect_timeout, handler_timeout) = (time(&names::CONNECT_TIMEOUT), time(&names::HANDLER_TIMEOUT));
    let head_timeout = time(&names::HEAD_TIMEOUT);
    if pong_timeout >= ping_interval {
        source.fault(&names::PONG_TIMEOUT, format!("must be shorter than {}", names::PING_INTERVAL.name));
    }
    let mut size = |setting| source.value(setting, value::size);
    Limits {
        ping_interval,
        pong_timeout,
        connect_timeout,
        handler_timeout,
        head_timeout,
        head: size(&names::MAX_HEAD),
        message: size(&names::MAX_MESSAGE),
        pending: size(&names::MAX_PENDING),
        queue: size(&names::MAX_QUEUE),
        send_buffer: size(&names::SEND_BUFFER),
        forward: size(&names::MAX_FORWARD),
        fragments: source.value(&names::MAX_FRAGMENTS, value::count(1)),
        reset_spread: source.value(&names::RESET_SPREAD, value::duration),
    }
}

fn mixpanel(source: &mut Source<'_>) -> Option<Mixpanel> {
    let url = source.value(&names::MIXPANEL_URL, value::http);
    source.secret(&names::MIXPANEL_TOKEN).map(|token| Mixpanel { token, url })
}

fn admin_hosts(source: &mut Source<'_>) -> Vec<String> {
    source.optional(&names::ADMIN_HOSTS, |text| value::list(text, value::host_name)).unwrap_or_default()
}

fn log(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is not a filter, like info or rollcall_runtime=debug")),
    }
}
