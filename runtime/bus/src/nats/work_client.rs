//! The connection that reads the stream, through the client library.
//!
//! Invariant: it comes back by itself, also to servers that were not known when the node started. The library knows only
//! the server that it was given, so a client that is cut off is replaced by the next call.
use std::sync::Arc;

use async_nats::{
    Client, RequestError,
    connection::State,
    jetstream::{self, Context},
};
use bytes::Bytes;
use tokio::sync::Mutex;

use super::{CALL_TIMEOUT, NatsError, options::NatsOptions, servers::Servers};
use crate::BusError;

const NAME: &str = "rollcall work";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct WorkClient {
    servers: Servers,
    current: Arc<Mutex<Client>>,
}

/// The stream's JetStream, to ask.
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

    /// What to ask now.
    pub(super) async fn jetstream(&self) -> Result<JetStream, BusError> {
        let mut current = self.current.lock().await;
        if current.connection_state() != State::Connected {
            *current = self.servers.connect(NAME).await.map_err(|error| BusError(error.to_string()))?;
        }
        Ok(JetStream { client: current.clone(), servers: self.servers.clone() })
    }

    /// The client, if it is connected.
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

    /// Whether the server itself has JetStream.
    pub(super) fn is_enabled(&self) -> bool {
        self.client.server_info().jetstream
    }

    /// Sends a request about the stream, as `STREAM.INFO`.
    pub(super) async fn ask(&self, request: &str, body: impl Into<Bytes>) -> Result<Bytes, RequestError> {
        Ok(self.client.request(self.options().api(request), body.into()).await?.payload)
    }

    /// The same through the library.
    pub(super) fn context(&self) -> Context {
        let mut context = match &self.options().domain {
            Some(domain) => jetstream::with_domain(self.client.clone(), domain),
            None => jetstream::new(self.client.clone()),
        };
        context.set_timeout(CALL_TIMEOUT);
        context
    }
}
