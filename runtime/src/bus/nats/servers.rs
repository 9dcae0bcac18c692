//! NATS_URL: which servers, with which credentials, and how a connection to them behaves.
//!
//! Invariant: the addresses that the client library gets have no credentials in them, so its logs have none.
use std::{future::Future, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;

use super::{ANSWER, NatsError};

/// A server that does not answer three of these is given up.
const PING: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(1);
/// Between attempts to connect again.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Servers {
    addresses: Vec<ServerAddr>,
    credentials: Option<(String, Option<String>)>,
}

impl Servers {
    /// `nats://host`, `tls://user:password@host:port` or `nats://token@host`, several separated by commas; the first
    /// credentials count for all.
    pub(super) fn parse(text: &str) -> Result<Self, NatsError> {
        let mut servers = Self { addresses: Vec::new(), credentials: None };
        for url in text.split(',').map(str::trim) {
            let address: ServerAddr = url.parse().map_err(|_| NatsError::Url)?;
            let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
            if let (Some(user), None) = (address.username(), &servers.credentials) {
                servers.credentials = Some((decoded(user), address.password().map(decoded)));
            }
            let mut bare = address.into_inner();
            bare.set_password(None).and(bare.set_username("")).map_err(|()| NatsError::Url)?;
            servers.addresses.push(ServerAddr::from_url(bare).map_err(|_| NatsError::Url)?);
        }
        Ok(servers)
    }

    /// Connects. Afterwards the connection comes back by itself; `event` hears of it.
    pub(super) async fn connect<F>(
        &self,
        name: &str,
        subscription_capacity: usize,
        event: impl Fn(Event) -> F + Send + Sync + 'static,
    ) -> Result<Client, NatsError>
    where
        F: Future<Output = ()> + Send + Sync + 'static,
    {
        let mut options = ConnectOptions::new()
            .name(name)
            .ping_interval(PING)
            .connection_timeout(CONNECT)
            .request_timeout(Some(ANSWER))
            .subscription_capacity(subscription_capacity)
            .reconnect_delay_callback(|attempts| if attempts > 1 { PAUSE } else { Duration::ZERO })
            .event_callback(event);
        options = match self.credentials.clone() {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
            None => options,
        };
        let connected = tokio::time::timeout(ANSWER, options.connect(&self.addresses[..])).await;
        connected.map_err(|_| NatsError::Away("no answer in time".to_owned()))?.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => NatsError::Refused,
            _ => NatsError::Away(error.to_string()),
        })
    }
}
