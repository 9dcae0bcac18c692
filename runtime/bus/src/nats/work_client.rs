//! The connection that reads the stream, through the client library.
//!
//! Invariant: a broken connection is made again, also to servers that were not known when the node started. The library
//! only knows the server that it was given, so the next call replaces a client that is cut off.
use std::sync::Arc;

use async_nats::{
    Client, RequestError,
    connection::State,
    jetstream::{self, Context},
};
use bytes::Bytes;
use tokio::sync::Mutex;

use super::{CALL_TIMEOUT, NatsError, connection::NatsConnection, options::NatsOptions, servers::Servers};
use crate::BusError;

const NAME: &str = "rollcall work";

/// The client that reads the stream. It is cheap to clone.
#[derive(Clone)]
pub(super) struct WorkClient {
    servers: Servers,
    current: Arc<Mutex<Client>>,
}

/// The JetStream that has the stream, ready to be asked.
#[derive(Clone)]
pub(super) struct JetStream {
    client: Client,
    servers: Servers,
}

impl WorkClient {
    pub(super) async fn connect(servers: &Servers) -> Result<Self, NatsError> {
        let client = servers.connect(NAME).await?;
        Ok(Self { servers: servers.clone(), current: Arc::new(Mutex::new(client)) })
    }

    /// Starts a server for a test, and connects to it.
    #[cfg(test)]
    pub(super) async fn with_server() -> (rollcall_loadtest::servers::Nats, Self) {
        let server = rollcall_loadtest::servers::Nats::start().expect("a server");
        let servers = Servers::new(NatsOptions::new(server.url())).expect("an address");
        let work = Self::connect(&servers).await.expect("connected");
        (server, work)
    }

    /// Returns JetStream on a connected client.
    pub(super) async fn jetstream(&self) -> Result<JetStream, BusError> {
        let mut current = self.current.lock().await;
        if current.connection_state() != State::Connected {
            *current = self.servers.connect(NAME).await.map_err(|error| BusError(error.to_string()))?;
        }
        Ok(JetStream { client: current.clone(), servers: self.servers.clone() })
    }

    /// Returns the client, if it is connected.
    pub(super) fn connected(&self) -> Option<Client> {
        let current = self.current.try_lock().ok()?;
        (current.connection_state() == State::Connected).then(|| current.clone())
    }
}

impl JetStream {
    pub(super) fn options(&self) -> &NatsOptions {
        self.servers.options()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns whether the server itself has JetStream enabled.
    pub(super) fn is_enabled(&self) -> bool {
        self.client.server_info().jetstream
    }

    /// Opens a [`NatsConnection`], for messages that the client library cannot read.
    pub(super) async fn open(&self, name: &str) -> Result<NatsConnection, BusError> {
        self.servers.open(name).await.map_err(|error| BusError(error.to_string()))
    }

    /// Sends a request about the stream, such as `STREAM.INFO`.
    pub(super) async fn ask(&self, request: &str, body: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        Ok(self.client.request(self.options().api(request), body.into()).await?.payload)
    }

    /// Returns the library's context of this JetStream.
    pub(super) fn context(&self) -> Context {
        let mut context = match &self.options().domain {
            Some(domain) => jetstream::with_domain(self.client.clone(), domain),
            None => jetstream::new(self.client.clone()),
        };
        context.set_timeout(CALL_TIMEOUT);
        context
    }
}
