//! How PostgreSQL is reached.
use std::time::Duration;

use rollcall_base::{BackendUrl, RotatingSecret};

use super::schema_name::SchemaName;

/// The server, and the connections to it.
#[derive(Clone)]
pub struct PostgresOptions {
    /// The URL `postgres://...`. It may hold a password, and several hosts.
    pub url: BackendUrl,
    /// The password, if it is not in the URL.
    pub password: Option<RotatingSecret>,
    /// The schema of the tables. Without it, the first one in the role's `search_path` is used.
    pub schema: Option<SchemaName>,
    /// The maximum number of connections for statements. There are up to four more: for heartbeats, for the relay, and
    /// two for background work.
    pub pool_size: usize,
    /// Whether the URL leads to a pooler that lends a connection for one transaction.
    pub pooler: bool,
    /// How long connecting to one address of one host may take, if the URL has no `connect_timeout`.
    pub connect: Duration,
}

impl PostgresOptions {
    /// Returns the default options for this URL.
    #[must_use]
    pub fn new(url: impl Into<BackendUrl>) -> Self {
        let connect = Duration::from_secs(1);
        Self { url: url.into(), password: None, schema: None, pool_size: 8, pooler: false, connect }
    }
}
