//! Private PostgreSQL, Redis, NATS and Prometheus for tests and benchmarks.
//!
//! Each server listens on a free loopback port and keeps its data in a folder of its own. `start` returns when the
//! server has answered in its own protocol. A server ends when its value is dropped, or when this process ends for any
//! reason.
//!
//! The calls block. Once the template of a PostgreSQL data folder exists, they take half a second at most.

mod authority;
mod balancer;
mod binary;
mod folder;
mod nats;
mod nats_cluster;
mod pgbouncer;
mod port;
mod postgres;
mod process;
mod prometheus;
mod redis;
mod redis_cluster;
mod sentinel;
mod server;
mod server_user;
pub mod shared;
mod signal;
mod sqlite;
mod standby;
mod tls_proxy;

pub use authority::{Authority, Issued};
pub use balancer::{Balancer, BalancerKind};
pub use binary::target_folder;
pub use nats::{Nats, NatsVersion};
pub use nats_cluster::{MemberOptions, NatsCluster, NatsMember};
pub use pgbouncer::{Pgbouncer, PgbouncerKind, PgbouncerOptions, PgbouncerVersion};
pub use postgres::{Postgres, PostgresOptions, psql, psql_command};
pub use prometheus::Prometheus;
pub use redis::{Redis, RedisOptions, tell_redis};
pub use redis_cluster::{RedisCluster, RedisTls};
pub use sentinel::{Sentinel, SentinelOptions};
pub use server::{Kind, Server};
pub use signal::children;
pub use sqlite::sqlite;
pub use standby::{Standby, StandbyOptions};
pub use tls_proxy::{TlsProxy, TlsProxyKind};

pub use folder::private_folder;
pub use port::free_port;
pub(crate) use process::{Process, all_output, output};
