//! Sentinel makes another server the master.
use rollcall_keys::RedisOptions;
use rollcall_loadtest::servers::{Redis, RedisOptions as ServerOptions, Sentinel, SentinelOptions, free_port};

use crate::{
    bench::{InRedis, connected, fresh, hash, options, participant, sid},
    failover::{heals, until},
    kinds::Tls,
};

/// Returns a master, a replica, and three Sentinels that know both and each other.
fn start() -> (Redis, Redis, Vec<Sentinel>) {
    let (master, replica) = (Redis::start().unwrap(), Redis::start().unwrap());
    replica.follow(master.port()).unwrap();
    let options = SentinelOptions { master: master.port(), quorum: 2, lines: Vec::new(), arguments: Vec::new() };
    let sentinels = (0..3).map(|_| Sentinel::start_with(options.clone()).unwrap()).collect();
    (master, replica, sentinels)
}

fn url(sentinels: &[Sentinel]) -> String {
    let hosts: Vec<String> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
    format!("redis+sentinel://{}/main", hosts.join(","))
}

/// Waits until each Sentinel knows the replica and the two other Sentinels.
async fn know_all(sentinels: &[Sentinel]) {
    until(async || {
        sentinels.iter().all(|sentinel| {
            let said = rollcall_loadtest::servers::tell_redis(sentinel.port(), "INFO sentinel").unwrap();
            said.contains("slaves=1,sentinels=3")
        })
    })
    .await;
}

#[tokio::test]
async fn a_master_that_is_killed_is_left_for_the_one_that_sentinel_makes() {
    let (mut master, replica, mut sentinels) = start();
    let kv = connected(url(&sentinels), "").await;
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    know_all(&sentinels).await;
    assert!(!kv.probe("rollcall:marker:1").await.unwrap());
    assert!(kv.probe("rollcall:marker:1").await.unwrap());
    // A Sentinel that was stopped still names the old master, as one behind a broken network would.
    sentinels[0].pause().unwrap();
    master.kill().unwrap();
    // Sentinel closes the clients of the server that it makes the master.
    until(async || replica.tell("INFO replication").is_ok_and(|said| said.contains("role:master"))).await;
    sentinels[0].resume().unwrap();
    heals(&*kv).await;
    assert!(!kv.probe("rollcall:marker:1").await.unwrap(), "writes may be lost");
    assert!(kv.probe("rollcall:marker:1").await.unwrap());
    let bench = InRedis::at(&replica.url(), "").await;
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, hash([("alice", &sid(1))]));
    // Sentinels that do not answer are ignored.
    sentinels[1].kill().unwrap();
    sentinels[2].pause().unwrap();
    connected(url(&sentinels), "").await.ping().await.unwrap();
}

#[tokio::test]
async fn what_sentinel_does_not_know_is_told() {
    let (master, _replica, sentinels) = start();
    let said = async |url: String| rollcall_keys::connect(options(url, "")).await.err().unwrap().to_string();
    let other = said(url(&sentinels).replace("/main", "/other")).await;
    assert!(other.contains("watches no service named other"), "{other}");
    let none = said(format!("redis+sentinel://127.0.0.1:{}/main", master.port())).await;
    assert!(none.contains("it is no Sentinel"), "{none}");
    let away = said("redis+sentinel://127.0.0.1:1/main".to_owned()).await;
    assert!(away.contains("127.0.0.1:1: ") && away.contains("no Sentinel knows the master"), "{away}");
}

#[tokio::test]
async fn sentinel_and_master_may_speak_tls_and_want_passwords() {
    let tls = Tls::start();
    let Tls { authority, server, redis: master, .. } = &tls;
    master.tell("CONFIG SET requirepass canary").unwrap();
    let port = free_port().unwrap();
    let arguments = ServerOptions::default().with_tls(port, authority, server, true).arguments;
    let lines = vec!["sentinel auth-pass main canary".to_owned(), "requirepass other".to_owned()];
    let options_of = SentinelOptions { master: tls.port, quorum: 1, lines, arguments };
    let _sentinel = Sentinel::start_with(options_of).unwrap();
    let url = format!("rediss+sentinel://:canary@127.0.0.1:{port}/main?sentinel_password=other");
    let kv = rollcall_keys::connect(RedisOptions { tls: tls.trusted(), ..options(url, "") }).await.unwrap();
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
}
