//! NATS_URL: which servers, with which credentials, and how a connection to them behaves.
//!
//! Invariant: the addresses that the client library gets have no credentials in them, so its logs have none. Credentials
//! are read again for each new connection, for the file that NATS_URL came from may have been replaced.
use std::time::Duration;

use async_nats::{Auth, Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::time::{sleep, timeout};

use super::{
    CALL_TIMEOUT, NatsError,
    connection::{Address, CONNECT_TIMEOUT, ConnectionError, Login, NatsConnection},
};
use rollcall_base::BackendUrl;

/// A server that does not answer three of these is given up, on any connection.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Between attempts to connect again.
pub(super) const RECONNECT_DELAY: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Servers {
    url: BackendUrl,
    /// The largest body that a connection of ours has to read, in bytes.
    max_body: usize,
}

/// The parts of the URL.
struct Parsed {
    addresses: Vec<ServerAddr>,
    login: Login,
}

impl Servers {
    /// `nats://host`, `tls://user:password@host:port` or `nats://token@host`, several separated by commas; the first
    /// credentials count for all.
    pub(super) fn new(url: BackendUrl, max_body: usize) -> Result<Self, NatsError> {
        Parsed::read(url.reveal())?;
        Ok(Self { url, max_body })
    }

    async fn current(&self) -> Result<Parsed, NatsError> {
        Parsed::read(self.url.current().await.reveal())
    }

    /// The servers as they are now.
    pub(super) async fn addresses(&self) -> Result<Vec<ServerAddr>, NatsError> {
        Ok(self.current().await?.addresses)
    }

    /// Connects with the client library. Afterwards the connection comes back by itself, to one of these servers.
    pub(super) async fn connect(&self, name: &str) -> Result<(Vec<ServerAddr>, Client), NatsError> {
        let addresses = self.addresses().await?;
        let servers = self.clone();
        // Asked for each connection, also after a break.
        let login = move |_nonce: Vec<u8>| {
            let servers = servers.clone();
            async move {
                let mut auth = Auth::new();
                if let Ok(Parsed { login, .. }) = servers.current().await {
                    (auth.username, auth.password, auth.token) = (login.user, login.pass, login.auth_token);
                }
                Ok(auth)
            }
        };
        let options = ConnectOptions::with_auth_callback(login)
            .name(name)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(CALL_TIMEOUT))
            .reconnect_delay_callback(|attempts| if attempts > 1 { RECONNECT_DELAY } else { Duration::ZERO });
        let connected = timeout(CALL_TIMEOUT, options.connect(&addresses[..])).await;
        let connected = connected.map_err(|_| NatsError::Away("no answer in time".to_owned()))?;
        let client = connected.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => NatsError::Refused,
            _ => NatsError::Away(error.to_string()),
        })?;
        Ok((addresses, client))
    }

    /// Opens a connection of our own, to the first server that accepts it.
    pub(super) async fn open(&self, name: &str) -> Result<NatsConnection, NatsError> {
        let Parsed { addresses, login } = self.current().await?;
        let mut last = NatsError::Url;
        for address in &addresses {
            match connect_to(address, &login, name, self.max_body).await {
                Ok(connection) => return Ok(connection),
                Err(ConnectionError::Refused) => last = NatsError::Refused,
                Err(error) => last = NatsError::Away(error.to_string()),
            }
        }
        Err(last)
    }

    /// The live connection, to the first server that accepts it.
    pub(super) async fn open_live(&self) -> Result<NatsConnection, NatsError> {
        self.open("rollcall live").await
    }

    /// The same after a break, with retries over all servers.
    pub(super) async fn reopen_live(&self) -> NatsConnection {
        loop {
            match self.open_live().await {
                Ok(connection) => return connection,
                Err(error) => tracing::debug!(%error, "no live connection to NATS"),
            }
            sleep(RECONNECT_DELAY).await;
        }
    }
}

impl Parsed {
    fn read(text: &str) -> Result<Self, NatsError> {
        let mut parsed = Self { addresses: Vec::new(), login: Login::default() };
        for url in text.split(',').map(str::trim) {
            let address: ServerAddr = url.parse().map_err(|_| NatsError::Url)?;
            let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
            let login = &mut parsed.login;
            if login.user.is_none() && login.auth_token.is_none() {
                match (address.username().map(decoded), address.password().map(decoded)) {
                    (user, Some(password)) => (login.user, login.pass) = (user, Some(password)),
                    (token, None) => login.auth_token = token,
                }
            }
            let mut bare = address.into_inner();
            bare.set_password(None).and(bare.set_username("")).map_err(|()| NatsError::Url)?;
            parsed.addresses.push(ServerAddr::from_url(bare).map_err(|_| NatsError::Url)?);
        }
        Ok(parsed)
    }
}

async fn connect_to(
    address: &ServerAddr,
    login: &Login,
    name: &str,
    max_body: usize,
) -> Result<NatsConnection, ConnectionError> {
    let tls = address.tls_required();
    let address = Address { host: address.host().to_owned(), port: address.port(), tls };
    NatsConnection::open(&address, login, name, max_body).await
}
