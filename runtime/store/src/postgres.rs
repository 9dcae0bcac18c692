//! The store of many nodes: PostgreSQL 14 or later, through deadpool-postgres.
//!
//! Invariant: even if the server is stopped or gone, a call returns within [`LIMIT`], and a statement after a write of
//! unknown outcome sees how that write ended ([`pool`]).
//!
//! Behind a pooler the store needs no session of its own ([`pooled`]).
mod advice;
mod agent_states;
mod backlog;
mod connect;
mod connect_error;
mod dead_node_looks;
mod dead_nodes;
mod dial;
mod doubtful;
mod erasure;
mod floor;
mod growth;
mod history;
mod hosts;
mod keeper;
mod kicks;
mod lease;
mod lesson_joins;
mod load;
mod migrate;
mod options;
mod outbox;
mod overview;
mod pool;
mod pooled;
mod queries;
mod recovery;
mod restored;
mod rights;
mod rows;
mod schema_name;
mod session_end;
mod sessions;
mod shard_claims;
mod shard_state;
mod stale_fields;
mod statement_error;
mod store;
mod taken_nodes;
mod timeline;
mod tls;
mod tls_stream;
mod url;
mod webhook;

use std::time::Duration;

pub use connect_error::ConnectError;
pub use options::PostgresOptions;
pub use schema_name::SchemaName;
pub use store::PostgresStore;
pub use url::check_url;

/// The store's name in metrics.
const NAME: &str = "postgres";
/// How long a call may take, including all its waits and retries.
const LIMIT: Duration = Duration::from_millis(1500);
/// The first half of the keys of this program's advisory locks: `Roll`.
const LOCKS: i32 = 0x526f_6c6c;
