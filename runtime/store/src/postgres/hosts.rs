//! Finds the server to connect to: the one that takes writes, among all addresses of all hosts in the URL.
//!
//! Invariant: each address has its own time limit, and one that does not answer, before or after it accepts, delays the
//! next one by no more than [`HEAD_START`]. They are tried in the URL's order, except that the address that last took
//! writes comes first. So a host that hangs costs nothing once another was found, and a former primary that comes back
//! and does not know it yet is not preferred.
use std::{collections::VecDeque, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    net::lookup_host,
    time::{Instant, sleep_until, timeout},
};
use tokio_postgres::{Config, config::Host};

use super::{
    connect_error::{ConnectError, Refusal},
    dial::{Address, Connected, dial},
    tls::Tls,
};

/// How long an address may take before the next one is tried concurrently.
const HEAD_START: Duration = Duration::from_millis(250);
const DEFAULT_PORT: u16 = 5432;

/// The result of one step of the search.
enum Step {
    Resolved(Vec<Address>),
    Connected(Address, Box<Connected>),
    Failed(Refusal),
}

/// The address of the last good connection.
#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<Option<Address>>);

impl Hosts {
    /// Connects to the server that takes writes. `limit` holds for each address, and for the look-up of each name.
    pub(super) async fn connect(&self, config: &Config, tls: &Tls, limit: Duration) -> Result<Connected, ConnectError> {
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
                        steps.push(attempt(config, address, limit, tls).boxed());
                    }
                    next_at = Instant::now() + HEAD_START;
                }
                else => return Err(ConnectError::of(failures)),
            }
        }
    }

    /// Orders the addresses: the last good one first, the others as in the URL.
    fn order(&self, waiting: &mut VecDeque<Address>) {
        let last = self.0.lock();
        waiting.make_contiguous().sort_by_key(|address| (last.as_ref() != Some(address), address.place));
    }

    fn remember(&self, address: Address) {
        let mut last = self.0.lock();
        if let Some(last) = &*last
            && *last != address
        {
            tracing::warn!(before = %last, now = %address, "postgres: another server takes the writes now");
        }
        *last = Some(address);
    }
}

/// Returns the hosts of the URL. As in libpq, an address in `hostaddr` is used instead of looking up the name, and a
/// single port counts for all.
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
    let Some(Host::Tcp(name)) = &host.host else { return Step::Failed(Refusal::plain(format!("{host}: no address"))) };
    match timeout(limit, lookup_host((name.as_str(), host.port))).await {
        Ok(Ok(found)) => Step::Resolved(found.map(|at| Address { ip: Some(at.ip()), ..host.clone() }).collect()),
        Ok(Err(error)) => Step::Failed(Refusal::plain(format!("{host}: {error}"))),
        Err(_) => Step::Failed(Refusal::plain(format!("{host}: its name was not resolved within {limit:?}"))),
    }
}

async fn attempt(config: &Config, address: Address, limit: Duration, tls: &Tls) -> Step {
    match timeout(limit, dial(config, &address, tls)).await {
        Ok(Ok(connected)) => Step::Connected(address, Box::new(connected)),
        Ok(Err(Refusal { why, advice })) => Step::Failed(Refusal { why: format!("{address}: {why}"), advice }),
        Err(_) => Step::Failed(Refusal::plain(format!("{address}: no answer within {limit:?}"))),
    }
}
