//! Which servers are tried, in which order, and with which credentials.
//!
//! Invariant: all connections use the members of the cluster that any of them has learned of, and a server that failed
//! lately is tried after the others. The addresses for the client library contain no credentials, so its logs contain
//! none. Credentials are read again for each new connection, because their file may have been replaced.
use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use futures_util::future::join_all;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use rollcall_base::tls::ClientTls;
use tokio::{
    net::lookup_host,
    time::{Instant, sleep, timeout},
};

use super::{
    CALL_TIMEOUT, NatsError,
    connection::{CONNECT_TIMEOUT, ConnectionError, Endpoint, NatsConnection},
    credentials::{Credentials, Key},
    options::NatsOptions,
    tls,
};

/// The time between two pings. On any connection, a server that leaves two of them unanswered is given up.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two attempts to connect again.
pub(super) const RECONNECT_DELAY: Duration = Duration::from_millis(100);
/// How long the system may take to look up a name.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);
/// For this long after a failure, a server is tried after the others.
const MISTRUST: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Servers {
    options: Arc<NatsOptions>,
    known: Arc<Mutex<Known>>,
}

/// What connections have learned of the servers.
#[derive(Default)]
struct Known {
    /// The members of the cluster, as one of them has named them.
    members: Vec<Host>,
    /// When servers failed, by address.
    failures: HashMap<String, Instant>,
    /// Whether the server that last sent INFO uses TLS.
    tls: bool,
}

/// A server by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    host: String,
    port: u16,
    /// The name that the server's certificate must have.
    name: String,
    tls: bool,
}

impl Servers {
    /// Reads `nats://host`, `tls://user:password@host:port` or `nats://token@host`. There may be several, separated by
    /// commas; the first credentials count for all.
    pub(super) fn new(options: NatsOptions) -> Result<Self, NatsError> {
        read(options.url.reveal())?;
        if let Some(credentials) = &options.credentials {
            Key::read(credentials.initial().reveal()).map_err(NatsError::Credentials)?;
        }
        Ok(Self { options: Arc::new(options), known: Arc::default() })
    }

    pub(super) fn options(&self) -> &NatsOptions {
        &self.options
    }

    /// Returns the present servers, with those that failed lately last, and the credentials for them.
    async fn current(&self) -> Result<(Vec<Host>, Credentials), NatsError> {
        let (mut hosts, auth) = read(self.options.url.current().await.reveal())?;
        let key = match &self.options.credentials {
            Some(secret) => Some(Key::read(secret.current().await.reveal()).map_err(NatsError::Credentials)?),
            None => None,
        };
        let known = self.known.lock();
        let tls = hosts.iter().any(|host| host.tls);
        for member in &known.members {
            if !hosts.iter().any(|host| (&host.host, host.port) == (&member.host, member.port)) {
                // The URL may ask for TLS since this member was learned.
                hosts.push(Host { tls: member.tls || tls, ..member.clone() });
            }
        }
        hosts.sort_by_key(|host| known.failed(&host.to_string()));
        Ok((hosts, Credentials { auth, key }))
    }

    /// Opens a [`NatsConnection`] to the first server that accepts it.
    pub(super) async fn open(&self, name: &str) -> Result<NatsConnection, NatsError> {
        let (hosts, credentials) = self.current().await?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for found in join_all(hosts.iter().map(Host::endpoints)).await {
            endpoints.extend(found);
        }
        {
            let known = self.known.lock();
            endpoints.sort_by_key(|endpoint| known.failed(&endpoint.socket.to_string()));
        }
        let mut why = NatsError::Away("no address is found for a host of NATS_URL".to_owned());
        for endpoint in &endpoints {
            match NatsConnection::open(endpoint, &credentials, &self.options, name).await {
                Ok(connection) => {
                    self.learn(&connection);
                    return Ok(connection);
                }
                Err(error) => {
                    self.note_failure(endpoint);
                    // If an operator must fix an error, that error is reported, even if the last server is only away.
                    if let NatsError::Away(_) = why {
                        why = refused(error, endpoint, &credentials);
                    }
                }
            }
        }
        Err(why)
    }

    /// Opens the live connection to the first server that accepts it.
    pub(super) async fn open_live(&self) -> Result<NatsConnection, NatsError> {
        self.open("rollcall live").await
    }

    /// Opens the live connection again after a break, with retries over all servers.
    pub(super) async fn reopen_live(&self) -> NatsConnection {
        loop {
            match self.open_live().await {
                Ok(connection) => return connection,
                Err(error) => tracing::debug!(%error, "no live connection to NATS"),
            }
            sleep(RECONNECT_DELAY).await;
        }
    }

    /// Connects with the client library to the first server that accepts it. When the client's connection breaks, it
    /// tries its server once more, and no other.
    pub(super) async fn connect(&self, name: &str) -> Result<Client, NatsError> {
        let (hosts, credentials) = self.current().await?;
        let mut why = NatsError::Away("no server is named".to_owned());
        for host in &hosts {
            let options = self.library_options(name, host).await?;
            let scheme = if host.tls { "tls" } else { "nats" };
            let address: ServerAddr = format!("{scheme}://{host}").parse().map_err(|_| NatsError::Url)?;
            why = match timeout(CALL_TIMEOUT, options.connect(address)).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => match error.kind() {
                    ConnectErrorKind::AuthorizationViolation => NatsError::Refused(credentials.name()),
                    _ => NatsError::Away(format!("{host}: {error}")),
                },
                Err(_) => NatsError::Away(format!("{host}: no answer in time")),
            };
            self.known.lock().note_failure(host.to_string());
        }
        Err(why)
    }

    async fn library_options(&self, name: &str, host: &Host) -> Result<ConnectOptions, NatsError> {
        let servers = self.clone();
        let login = move |nonce: Vec<u8>| {
            let servers = servers.clone();
            async move {
                let (_, credentials) = servers.current().await.map_err(AuthError::new)?;
                credentials.auth(&nonce).map_err(AuthError::new)
            }
        };
        let options = ConnectOptions::with_auth_callback(login)
            .name(name)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(CALL_TIMEOUT))
            .reconnect_delay_callback(|_| Duration::ZERO)
            .ignore_discovered_servers()
            .max_reconnects(1);
        // Certificates in the settings require TLS, whatever a server says. `connection.rs` has the same rule.
        let given = self.options.tls != ClientTls::default();
        if !(host.tls || self.options.tls_first || given || self.known.lock().tls) {
            return Ok(options);
        }
        let other_name = (host.name != host.host).then(|| host.name.clone());
        let config =
            tls::config(&self.options.tls, other_name).await.map_err(|error| NatsError::Tls(error.to_string()))?;
        let options = options.tls_client_config(config).require_tls(true);
        Ok(if self.options.tls_first { options.tls_first() } else { options })
    }

    /// Records that a connection to this server failed, or that the server stopped answering. Other servers are tried
    /// first.
    pub(super) fn note_failure(&self, endpoint: &Endpoint) {
        self.known.lock().note_failure(endpoint.socket.to_string());
    }

    /// Records the members of the cluster that a server has named.
    pub(super) fn learn(&self, connection: &NatsConnection) {
        let (info, from) = (&connection.info, &connection.endpoint);
        let mut known = self.known.lock();
        known.tls = connection.secured;
        known.failures.remove(&from.socket.to_string());
        if !info.connect_urls.is_empty() {
            known.members = info.connect_urls.iter().filter_map(|url| Host::member(url, from)).collect();
        }
    }
}

impl Known {
    fn note_failure(&mut self, address: String) {
        self.failures.retain(|_, at| at.elapsed() < MISTRUST);
        self.failures.insert(address, Instant::now());
    }

    /// Returns when this address failed, if that is not long ago.
    fn failed(&self, address: &str) -> Option<Instant> {
        self.failures.get(address).copied().filter(|at| at.elapsed() < MISTRUST)
    }
}

impl Host {
    /// Creates a member that a server has named. If the member has only an IP address, its certificate must have the
    /// name of that server, because certificates of clusters seldom have addresses.
    fn member(url: &str, from: &Endpoint) -> Option<Self> {
        let address: ServerAddr = url.parse().ok()?;
        let host = address.host().to_owned();
        let is_address = |host: &str| host.parse::<IpAddr>().is_ok();
        let name = if is_address(&host) && !is_address(&from.name) { from.name.clone() } else { host.clone() };
        Some(Self { port: address.port(), name, tls: from.tls, host })
    }

    async fn endpoints(&self) -> Vec<Endpoint> {
        let found = timeout(LOOKUP_TIMEOUT, lookup_host((self.host.as_str(), self.port))).await;
        let endpoint = |socket| Endpoint { socket, name: self.name.clone(), tls: self.tls };
        found.ok().and_then(Result::ok).into_iter().flatten().map(endpoint).collect()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Reads a URL: its servers, and its user, password or token.
fn read(text: &str) -> Result<(Vec<Host>, Auth), NatsError> {
    let (mut hosts, mut auth) = (Vec::new(), Auth::new());
    for url in text.split(',').map(str::trim) {
        let address: ServerAddr = url.parse().map_err(|_| NatsError::Url)?;
        let inner = address.clone().into_inner();
        // The rest of a password with a `/`, `?` or `#` would be taken for part of the address, and be shown.
        if !matches!(inner.path(), "" | "/") || inner.query().or(inner.fragment()).is_some() {
            return Err(NatsError::Url);
        }
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        if auth.username.is_none() && auth.token.is_none() {
            match (address.username().map(decoded), address.password().map(decoded)) {
                (user, Some(password)) => (auth.username, auth.password) = (user, Some(password)),
                (token, None) => auth.token = token,
            }
        }
        let host = address.host().to_owned();
        hosts.push(Host { name: host.clone(), port: address.port(), tls: address.tls_required(), host });
    }
    Ok((hosts, auth))
}

fn refused(error: ConnectionError, endpoint: &Endpoint, credentials: &Credentials) -> NatsError {
    let Endpoint { socket, name, .. } = endpoint;
    match error {
        ConnectionError::Refused => NatsError::Refused(credentials.name()),
        ConnectionError::Tls(why) => NatsError::Tls(format!("{name} ({socket}): {why}")),
        error => NatsError::Away(format!("{name} ({socket}): {error}")),
    }
}

#[cfg(test)]
mod tests;
