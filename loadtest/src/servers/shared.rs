//! One server for all tests of a process that do no harm to it.
//!
//! They are never dropped: the end of the process ends them.

use std::sync::LazyLock;

use super::{Nats, Postgres, Redis, RedisCluster};

/// The process's PostgreSQL; take a database of your own with
/// [`create_database`](Postgres::create_database).
///
/// # Panics
/// When it cannot be started.
pub fn postgres() -> &'static Postgres {
    static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().expect("a private PostgreSQL starts"));
    &SERVER
}

/// The process's Redis; keep apart from other tests by a key prefix.
///
/// # Panics
/// When it cannot be started.
pub fn redis() -> &'static Redis {
    static SERVER: LazyLock<Redis> = LazyLock::new(|| Redis::start().expect("a private Redis starts"));
    &SERVER
}

/// The process's Redis Cluster; keep apart from other tests by a key prefix.
///
/// # Panics
/// When it cannot be started.
pub fn redis_cluster() -> &'static RedisCluster {
    static SERVER: LazyLock<RedisCluster> =
        LazyLock::new(|| RedisCluster::start(None).expect("a private Redis Cluster starts"));
    &SERVER
}

/// The process's NATS server; keep apart from other tests by classroom.
///
/// # Panics
/// When it cannot be started.
pub fn nats() -> &'static Nats {
    static SERVER: LazyLock<Nats> = LazyLock::new(|| Nats::start().expect("a private NATS starts"));
    &SERVER
}
