//! REDIS_URL with a cluster, with Sentinel and with TLS: the seed's flows, and what `rollcall check` says about each
//! fault.

use std::path::Path;
use std::process::{Child, Stdio};

use rollcall_loadtest::GatewayOptions;
use rollcall_loadtest::servers::{Authority, Redis, RedisOptions, Sentinel, SentinelOptions, free_port, shared};

use crate::common::{Backend, Servers};
use crate::{seed_003_participant, seed_003_teacher};

/// Runs both flows of seed 003.
async fn seed_003(backend: &Backend) {
    seed_003_teacher::the_diagram(backend).await;
    seed_003_participant::the_diagram(backend).await;
    seed_003_teacher::leaving_takes_its_own_field_only(backend).await;
    seed_003_participant::the_latest_live_join_holds_the_field(backend).await;
}

#[tokio::test]
async fn seed_003_on_a_redis_cluster() {
    let cluster = shared::redis_cluster();
    let servers = Servers { redis: cluster.url(), keys: cluster.ports(), ..Servers::shared() };
    seed_003(&Backend::start(Some(servers), GatewayOptions::clone)).await;
}

/// A Redis with TLS and users behind Sentinel, and what a client needs to reach it.
struct Tls {
    authority: Authority,
    redis: Redis,
    port: u16,
}

impl Tls {
    fn start() -> Self {
        let authority = Authority::new().unwrap();
        let server = authority.issue(&["127.0.0.1"]).unwrap();
        let port = free_port().unwrap();
        let redis = Redis::start_with(RedisOptions::default().with_tls(port, &authority, &server, true)).unwrap();
        redis.tell("ACL SETUSER gateway on >canary ~* +@all").unwrap();
        Self { authority, redis, port }
    }

    fn client(&self, options: GatewayOptions) -> GatewayOptions {
        let client = self.authority.issue(&["gateway.example"]).unwrap();
        let ca = self.authority.certificate();
        let options = options.env("ROLLCALL_REDIS_CA_FILE", ca.display());
        let options = options.env("ROLLCALL_REDIS_CERT", client.certificate.display());
        options.env("ROLLCALL_REDIS_KEY", client.key.display())
    }
}

#[tokio::test]
async fn seed_003_on_a_redis_with_tls_and_users_behind_sentinel() {
    let tls = Tls::start();
    let (port, server) = (free_port().unwrap(), tls.authority.issue(&["127.0.0.1"]).unwrap());
    let arguments = RedisOptions::default().with_tls(port, &tls.authority, &server, true).arguments;
    let options = SentinelOptions { master: tls.port, quorum: 1, lines: Vec::new(), arguments };
    let _sentinel = Sentinel::start_with(options).unwrap();
    let redis = format!("rediss+sentinel://gateway:canary@127.0.0.1:{port}/main");
    let servers = Servers { redis, keys: vec![tls.redis.port()], ..Servers::shared() };
    seed_003(&Backend::start(Some(servers), |options| tls.client(options.clone()))).await;
}

fn check(options: GatewayOptions, folder: &Path) -> Child {
    let mut command = options.arg("check").command();
    command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn check_says_in_one_line_what_to_change() {
    let (tls, cluster) = (Tls::start(), shared::redis_cluster());
    let (other, folder) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
    let gateway = || GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"));
    let url = |user: &str, host: &str| format!("rediss://{user}:canary@{host}:{}", tls.port);
    let to = |url: String| tls.client(gateway()).env("REDIS_URL", url);
    tls.redis.tell("ACL SETUSER poor on >canary ~* +@all -hset").unwrap();
    tls.redis.tell("ACL SETUSER mute on >canary ~* +@all -script").unwrap();
    let cases = [
        (to(url("gateway", "127.0.0.1")), "ok "),
        (to(url("poor", "127.0.0.1")), "lacks a right: give it, by ACL SETUSER"),
        (
            to(url("mute", "127.0.0.1")),
            "NoPerm: this user has no permissions to run the 'script|load' command; the user of",
        ),
        (to(url("gateway", "localhost")), "its certificate is for 127.0.0.1, not for localhost"),
        (
            to(url("gateway", "127.0.0.1")).env("ROLLCALL_REDIS_CA_FILE", other.certificate().display()),
            "add that authority's certificate to the CA file",
        ),
        (
            to(url("gateway", "127.0.0.1")).without("ROLLCALL_REDIS_CERT").without("ROLLCALL_REDIS_KEY"),
            "asks for a client certificate",
        ),
        (gateway().env("REDIS_URL", cluster.url()), "ok "),
        (
            gateway().env("REDIS_URL", format!("redis://127.0.0.1:{}", cluster.ports()[0])),
            "begin REDIS_URL with redis+cluster",
        ),
    ];
    let running = cases.map(|(options, expected)| (check(options, folder.path()), expected));
    for (child, expected) in running {
        let output = child.wait_with_output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let line = lines.lines().find(|line| line.contains(" keys ")).expect(&lines);
        let begins = if expected == "ok " { "ok " } else { "FAIL" };
        assert!(line.starts_with(begins) && line.contains(expected) && !line.contains("canary"), "{expected}: {line}");
        assert!(line.matches("NoPerm").count() < 2, "once for all scripts: {line}");
    }
}
