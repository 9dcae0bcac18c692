//! The connection that reads the stream, through the client library.
//!
//! Invariant: it comes back by itself, also to servers that NATS_URL's file did not name when the node started. The library
//! tries only those that it was given, so a client that is cut off is replaced where the file names others.
use std::sync::Arc;

use async_nats::{Client, ServerAddr, connection::State};
use tokio::sync::Mutex;

use super::{NatsError, servers::Servers};

const NAME: &str = "rollcall work";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct WorkClient {
    servers: Servers,
    current: Arc<Mutex<Current>>,
}

struct Current {
    /// Those that the client tries.
    addresses: Vec<ServerAddr>,
    client: Client,
}

impl WorkClient {
    pub(super) async fn connect(servers: &Servers) -> Result<Self, NatsError> {
        let (addresses, client) = servers.connect(NAME).await?;
        Ok(Self { servers: servers.clone(), current: Arc::new(Mutex::new(Current { addresses, client })) })
    }

    /// The client to ask now.
    pub(super) async fn client(&self) -> Client {
        let mut current = self.current.lock().await;
        if current.client.connection_state() != State::Connected
            && let Ok(addresses) = self.servers.addresses().await
            && addresses != current.addresses
            && let Ok((addresses, client)) = self.servers.connect(NAME).await
        {
            *current = Current { addresses, client };
        }
        current.client.clone()
    }
}
