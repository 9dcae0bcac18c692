//! Which server to connect to: the one that takes writes, among all the addresses of all the hosts of the URL.
//!
//! Invariant: each address has its own time, and one that does not answer, before or after it accepts, holds up the
//! others by no more than [`HEAD_START`] each. They are tried in the URL's order, but for the one that took writes last,
//! which comes first: so a host that hangs costs nothing once another was found, and a former primary that comes back
//! and does not know it yet is not preferred.
use std::{
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    net::lookup_host,
    time::{Instant, sleep_until, timeout},
};
use tokio_postgres::{Client, Config, Connection, NoTls, Socket, config::Host, tls::NoTlsStream};

use super::statement_error::text;
use crate::StoreError;

/// How long an address is waited for before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
const DEFAULT_PORT: u16 = 5432;

/// A connection that takes writes.
pub(super) type Connected = (Client, Connection<Socket, NoTlsStream>);

/// One place to connect to. Ordered as in the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    /// The host's place in the URL.
    place: usize,
    host: Option<Host>,
    /// None for a Unix socket.
    ip: Option<IpAddr>,
    port: u16,
}

/// How one step of the search ended.
enum Step {
    Resolved(Vec<Address>),
    Connected(Address, Box<Connected>),
    Failed(String),
}

/// Where a connection was found last.
#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<Option<Address>>);

impl Hosts {
    /// A connection to the server that takes writes. `limit` is for each address, and for the look-up of each name.
    pub(super) async fn connect(&self, config: &Config, limit: Duration) -> Result<Connected, StoreError> {
        let mut steps: FuturesUnordered<BoxFuture<'_, Step>> = FuturesUnordered::new();
        let mut waiting = VecDeque::new();
        for host in hosts(config) {
            match host.ip.is_some() || matches!(host.host, Some(Host::Unix(_))) {
                true => waiting.push_back(host),
                false => steps.push(resolve(host, limit).boxed()),
            }
        }
        let mut failures = Vec::new();
        let mut next_at = Instant::now();
        loop {
            self.order(&mut waiting);
            tokio::select! {
                biased;
                Some(step) = steps.next() => match step {
                    Step::Resolved(addresses) => waiting.extend(addresses),
                    Step::Connected(address, connected) => {
                        self.remember(address);
                        return Ok(*connected);
                    }
                    Step::Failed(why) => {
                        failures.push(why);
                        next_at = Instant::now();
                    }
                },
                () = sleep_until(next_at), if !waiting.is_empty() => {
                    if let Some(address) = waiting.pop_front() {
                        steps.push(attempt(config, address, limit).boxed());
                    }
                    next_at = Instant::now() + HEAD_START;
                }
                else => return Err(StoreError::Unavailable(match failures.is_empty() {
                    true => "DATABASE_URL names no host".to_owned(),
                    false => failures.join("; "),
                })),
            }
        }
    }

    /// The last good one first, the others as in the URL.
    fn order(&self, waiting: &mut VecDeque<Address>) {
        // An option is whole after any panic.
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.make_contiguous().sort_by_key(|address| (last.as_ref() != Some(address), address.place));
    }

    fn remember(&self, address: Address) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && *last != address
        {
            tracing::warn!(before = %last, now = %address, "postgres: another server takes the writes now");
        }
        *last = Some(address);
    }
}

/// The hosts of the URL. As in libpq, an address in `hostaddr` goes before the look-up of the name, and one port counts
/// for all.
fn hosts(config: &Config) -> impl Iterator<Item = Address> {
    let (names, ips, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    (0..names.len().max(ips.len())).map(move |place| {
        let host = names.get(place).cloned();
        let literal = match &host {
            Some(Host::Tcp(name)) => name.parse().ok(),
            _ => None,
        };
        let port = ports.get(place).or_else(|| ports.first()).copied().unwrap_or(DEFAULT_PORT);
        Address { place, ip: ips.get(place).copied().or(literal), host, port }
    })
}

async fn resolve(host: Address, limit: Duration) -> Step {
    let Some(Host::Tcp(name)) = &host.host else { return Step::Failed(format!("{host}: no address")) };
    match timeout(limit, lookup_host((name.as_str(), host.port))).await {
        Ok(Ok(found)) => Step::Resolved(found.map(|at| Address { ip: Some(at.ip()), ..host.clone() }).collect()),
        Ok(Err(error)) => Step::Failed(format!("{host}: {error}")),
        Err(_) => Step::Failed(format!("{host}: its name was not resolved within {limit:?}")),
    }
}

async fn attempt(config: &Config, address: Address, limit: Duration) -> Step {
    let config = only(config, &address);
    match timeout(limit, config.connect(NoTls)).await {
        Ok(Ok(connected)) => Step::Connected(address, Box::new(connected)),
        Ok(Err(error)) => Step::Failed(format!("{address}: {}", text(&error))),
        Err(_) => Step::Failed(format!("{address}: no answer within {limit:?}")),
    }
}

/// The same with this address alone. The type has no way to take hosts out again.
fn only(all: &Config, address: &Address) -> Config {
    let mut one = Config::new();
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(database) = all.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    match &address.host {
        Some(Host::Tcp(name)) => one.host(name),
        Some(Host::Unix(path)) => one.host_path(path),
        None => &mut one,
    };
    if let Some(ip) = address.ip {
        one.hostaddr(ip);
    }
    if let Some(limit) = all.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.port(address.port)
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs());
    one
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.ip) {
            (Some(Host::Unix(path)), _) => write!(f, "{}", path.display()),
            (Some(Host::Tcp(name)), Some(ip)) if *name != ip.to_string() => write!(f, "{name} ({ip}) {}", self.port),
            (Some(Host::Tcp(name)), _) => write!(f, "{name}:{}", self.port),
            (None, Some(ip)) => write!(f, "{ip}:{}", self.port),
            (None, None) => write!(f, "no host"),
        }
    }
}
