//! NATS_URL: which servers, with which credentials, and how a connection to them behaves.
//!
//! Invariant: the addresses that the client library gets have no credentials in them, so its logs have none.
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::time::{sleep, timeout};

use super::{
    ANSWER, NatsError,
    link::{Address, Link, LinkError, Login},
};

/// A server that does not answer three of these is given up, on either connection.
pub(super) const PING: Duration = Duration::from_secs(1);
/// From the first packet to the answer to our CONNECT.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// Between attempts to connect again.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Servers {
    addresses: Vec<ServerAddr>,
    login: Login,
}

impl Servers {
    /// `nats://host`, `tls://user:password@host:port` or `nats://token@host`, several separated by commas; the first
    /// credentials count for all.
    pub(super) fn parse(text: &str) -> Result<Self, NatsError> {
        let mut servers = Self { addresses: Vec::new(), login: Login::default() };
        for url in text.split(',').map(str::trim) {
            let address: ServerAddr = url.parse().map_err(|_| NatsError::Url)?;
            let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
            let login = &mut servers.login;
            if login.user.is_none() && login.auth_token.is_none() {
                match (address.username().map(decoded), address.password().map(decoded)) {
                    (user, Some(password)) => (login.user, login.pass) = (user, Some(password)),
                    (token, None) => login.auth_token = token,
                }
            }
            let mut bare = address.into_inner();
            bare.set_password(None).and(bare.set_username("")).map_err(|()| NatsError::Url)?;
            servers.addresses.push(ServerAddr::from_url(bare).map_err(|_| NatsError::Url)?);
        }
        Ok(servers)
    }

    /// Connects with the client library. Afterwards the connection comes back by itself.
    pub(super) async fn connect(&self, name: &str) -> Result<Client, NatsError> {
        let mut options = ConnectOptions::new()
            .name(name)
            .ping_interval(PING)
            .connection_timeout(CONNECT)
            .request_timeout(Some(ANSWER))
            .reconnect_delay_callback(|attempts| if attempts > 1 { PAUSE } else { Duration::ZERO });
        options = match self.login.clone() {
            Login { user: Some(user), pass: Some(password), .. } => options.user_and_password(user, password),
            Login { auth_token: Some(token), .. } => options.token(token),
            Login { .. } => options,
        };
        let connected = timeout(ANSWER, options.connect(&self.addresses[..])).await;
        connected.map_err(|_| NatsError::Away("no answer in time".to_owned()))?.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => NatsError::Refused,
            _ => NatsError::Away(error.to_string()),
        })
    }

    /// The live connection, to the first server that lets us in.
    pub(super) async fn link(&self) -> Result<Link, NatsError> {
        let mut last = NatsError::Url;
        for address in &self.addresses {
            match self.link_to(address).await {
                Ok(link) => return Ok(link),
                Err(LinkError::Refused) => last = NatsError::Refused,
                Err(error) => last = NatsError::Away(error.to_string()),
            }
        }
        Err(last)
    }

    /// The same after a break, from server to server until one does.
    pub(super) async fn link_again(&self) -> Link {
        loop {
            for address in &self.addresses {
                match self.link_to(address).await {
                    Ok(link) => return link,
                    Err(error) => tracing::debug!(%error, "no live connection to NATS"),
                }
                sleep(PAUSE).await;
            }
        }
    }

    async fn link_to(&self, address: &ServerAddr) -> Result<Link, LinkError> {
        let tls = address.tls_required();
        let address = Address { host: address.host().to_owned(), port: address.port(), tls };
        Link::open(&address, &self.login, "rollcall live").await
    }
}
