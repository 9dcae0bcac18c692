//! How PostgreSQL is reached.
use std::time::Duration;

use rollcall_base::{BackendUrl, RotatingSecret};

use super::schema_name::SchemaName;

/// The server, and the connections to it.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://...`; may hold a password, and several hosts.
    pub url: BackendUrl,
    /// The password, where it is not in the URL.
    pub password: Option<RotatingSecret>,
    /// The schema of the tables; without it the first one of the role's `search_path`.
    pub schema: Option<SchemaName>,
    /// Connections for statements. There are up to four more: for heartbeats, for the relay, and two for background work.
    pub pool_size: usize,
    /// Whether the URL leads to a pooler that lends a connection for one transaction.
    pub pooler: bool,
    /// How long making a connection to one address of one host may take, where the URL has no `connect_timeout`.
    pub connect: Duration,
}

impl PostgresOptions {
    /// The defaults for this URL.
    #[must_use]
    pub fn new(url: impl Into<BackendUrl>) -> Self {
        let connect = Duration::from_secs(1);
        Self { url: url.into(), password: None, schema: None, pool_size: 8, pooler: false, connect }
    }
}
