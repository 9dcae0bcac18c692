//! The kinds of servers on which the cases run, each started once.
use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use rollcall_base::tls::{ClientCertificate, ClientTls};
use rollcall_keys::RedisOptions;
use rollcall_loadtest::servers::{
    Authority, Issued, Redis, RedisOptions as ServerOptions, Sentinel, SentinelOptions, free_port, shared,
};

use crate::bench::{InRedis, options};

/// Returns a prefix that no other case uses.
fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}:", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns the keys on one server.
pub(crate) async fn single() -> InRedis {
    InRedis::at(&shared::redis().url(), &prefix()).await
}

/// A server with TLS that asks for clients' certificates, and what clients need.
pub(crate) struct Tls {
    pub(crate) authority: Authority,
    pub(crate) server: Issued,
    pub(crate) client: Issued,
    pub(crate) redis: Redis,
    pub(crate) port: u16,
}

impl Tls {
    pub(crate) fn start() -> Self {
        let authority = Authority::new().unwrap();
        let [server, client] = ["127.0.0.1", "gateway.example"].map(|name| authority.issue(&[name]).unwrap());
        let port = free_port().unwrap();
        let redis = Redis::start_with(ServerOptions::default().with_tls(port, &authority, &server, true)).unwrap();
        Self { authority, server, client, redis, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    /// Returns the options of a client that trusts the authority and has a certificate.
    pub(crate) fn trusted(&self) -> ClientTls {
        client_tls(&self.authority, Some(&self.client))
    }
}

pub(crate) fn client_tls(authority: &Authority, client: Option<&Issued>) -> ClientTls {
    let certificate =
        client.map(|Issued { certificate, key }| ClientCertificate { chain: certificate.clone(), key: key.clone() });
    ClientTls { system_roots: false, ca_file: Some(authority.certificate()), certificate }
}

/// Returns the keys on one server, with TLS and certificates on both sides.
pub(crate) async fn tls() -> InRedis {
    static SERVER: LazyLock<Tls> = LazyLock::new(Tls::start);
    let options = RedisOptions { tls: SERVER.trusted(), ..options(SERVER.url(), &prefix()) };
    InRedis::of(options, [SERVER.redis.port()]).await
}

/// Returns the keys on the master that Sentinel names.
pub(crate) async fn sentinel() -> InRedis {
    static SERVERS: LazyLock<(Redis, Sentinel)> = LazyLock::new(|| {
        let master = Redis::start().unwrap();
        let options = SentinelOptions { master: master.port(), quorum: 1, lines: Vec::new(), arguments: Vec::new() };
        (master, Sentinel::start_with(options).unwrap())
    });
    let (master, sentinel) = &*SERVERS;
    InRedis::of(options(sentinel.url(), &prefix()), [master.port()]).await
}

/// Returns the keys on a cluster of three masters with a replica each.
pub(crate) async fn cluster() -> InRedis {
    let cluster = shared::redis_cluster();
    InRedis::of(options(cluster.url(), &prefix()), cluster.ports()).await
}
