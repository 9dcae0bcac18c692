//! One server of each kind for all tests of a process that do it no harm.
//!
//! The servers are never dropped; they end with the process.

use std::sync::LazyLock;

use super::{Nats, Postgres, Redis, RedisCluster};

/// Returns the PostgreSQL of this process. A test creates its own database with
/// [`create_database`](Postgres::create_database).
///
/// # Panics
/// Panics if the server cannot be started.
pub fn postgres() -> &'static Postgres {
    static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().expect("a private PostgreSQL starts"));
    &SERVER
}

/// Returns the Redis of this process. A test uses its own prefix of keys.
///
/// # Panics
/// Panics if the server cannot be started.
pub fn redis() -> &'static Redis {
    static SERVER: LazyLock<Redis> = LazyLock::new(|| Redis::start().expect("a private Redis starts"));
    &SERVER
}

/// Returns the Redis Cluster of this process. A test uses its own prefix of keys.
///
/// # Panics
/// Panics if the server cannot be started.
pub fn redis_cluster() -> &'static RedisCluster {
    static SERVER: LazyLock<RedisCluster> =
        LazyLock::new(|| RedisCluster::start(None).expect("a private Redis Cluster starts"));
    &SERVER
}

/// Returns the NATS server of this process. A test uses its own classrooms.
///
/// # Panics
/// Panics if the server cannot be started.
pub fn nats() -> &'static Nats {
    static SERVER: LazyLock<Nats> = LazyLock::new(|| Nats::start().expect("a private NATS starts"));
    &SERVER
}
