//! What only Redis can do: it is shared with other services, forgets its scripts, goes away and comes back.
use std::time::Duration;

use bb8_redis::redis::cmd;
use rollcall_keys::LessonKeys;
use rollcall_loadtest::{Way, Wire, servers::Redis};
use rollcall_schema::Role;
use tokio::time::{Instant, sleep, timeout};

use crate::bench::{InRedis, connected, entry, fresh, hash, options, participant, raw, sid, stale};

/// Calls until a call succeeds. Returns how long that took.
async fn recovered(kv: &dyn LessonKeys) -> Duration {
    let since = Instant::now();
    while let Err(error) = kv.join(&participant("algebra-1", "alice", 1), None).await {
        assert!(since.elapsed() < Duration::from_secs(10), "{error}");
    }
    since.elapsed()
}

/// Expects that a call fails, within the contract's limit.
async fn fails_in_time(kv: &dyn LessonKeys) {
    let joined = participant("algebra-1", "alice", 1);
    let answer = timeout(Duration::from_millis(1600), kv.join(&joined, None)).await;
    answer.expect("an answer in time").expect_err("Redis is away");
}

#[tokio::test]
async fn keys_have_no_prefix_by_default() {
    let server = Redis::start().unwrap();
    let kv = connected(server.url(), "").await;
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    kv.join(&entry("algebra-1", "tom", Role::Teacher, 2), None).await.unwrap();
    let mut keys: Vec<String> = cmd("KEYS").arg("*").query_async(&mut raw(&server.url()).await).await.unwrap();
    keys.retain(|key| !key.starts_with("rollcall:"));
    keys.sort();
    assert_eq!(keys, ["alice", "lesson_seat_algebra-1", "lesson_student_algebra-1", "lesson_teacher_algebra-1", "tom"]);
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    let server = Redis::start().unwrap();
    let bench = InRedis::at(&server.url(), "").await;
    let forget = async || cmd("SCRIPT").arg("FLUSH").exec_async(&mut bench.connections[0].clone()).await.unwrap();
    let alice = participant("algebra-1", "alice", 1);
    forget().await;
    bench.kv.join(&alice, None).await.unwrap();
    forget().await;
    bench.kv.repair(&[alice.clone(), participant("algebra-1", "bob", 2)]).await.unwrap();
    forget().await;
    bench.kv.remove(&[stale(&alice, None)]).await.unwrap();
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, hash([("bob", &sid(2))]));
}

#[tokio::test]
async fn a_killed_server_is_told_in_time_and_found_again() {
    let mut server = Redis::start().unwrap();
    let kv = connected(server.url(), "").await;
    assert!(!kv.probe("marker").await.unwrap());
    server.kill().unwrap();
    fails_in_time(&*kv).await;
    fails_in_time(&*kv).await;
    server.restart().unwrap();
    assert!(recovered(&*kv).await < Duration::from_secs(3));
    assert!(!kv.probe("marker").await.unwrap(), "it came back empty");
}

#[tokio::test]
async fn a_restart_between_two_calls_goes_unnoticed() {
    let mut server = Redis::start().unwrap();
    let kv = connected(server.url(), "").await;
    server.restart().unwrap();
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
}

#[tokio::test]
async fn a_stopped_server_hangs_nothing_and_is_found_again() {
    let server = Redis::start().unwrap();
    let kv = connected(server.url(), "").await;
    server.pause().unwrap();
    let calls = (0..200).map(|_| {
        let kv = kv.clone();
        tokio::spawn(async move { fails_in_time(&*kv).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    fails_in_time(&*kv).await;
    server.resume().unwrap();
    assert!(recovered(&*kv).await < Duration::from_secs(3));
}

/// The caller has given up by then, or has joined another lesson.
#[tokio::test]
async fn a_join_that_a_server_carries_out_late_does_nothing() {
    let server = Redis::start().unwrap();
    let wire = Wire::before(([127, 0, 0, 1], server.port()).into()).unwrap();
    let kv = connected(wire.instead_of(&server.url()), "").await;
    let before = [participant("algebra-1", "bob", 2)];
    kv.repair(&before).await.unwrap();
    wire.hold(Way::Both);
    let joined = participant("algebra-1", "alice", 1);
    let (join, project) = tokio::join!(kv.join(&joined, None), kv.repair(std::slice::from_ref(&joined)));
    assert!(join.is_err() && project.is_err(), "{join:?} {project:?}");
    wire.clear();
    let mut connection = raw(&server.url()).await;
    let calls = async || -> u64 {
        let said: String = cmd("INFO").arg("commandstats").query_async(&mut connection.clone()).await.unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    let since = Instant::now();
    // The test waits for the second call of a script, which is the join's. The repair is still checking what is
    // missing.
    while calls().await < 2 {
        assert!(since.elapsed() < Duration::from_secs(10), "what was held arrives");
        sleep(Duration::from_millis(5)).await;
    }
    // The check is answered in time, and the script reaches the server too late.
    while calls().await < 3 {
        assert!(since.elapsed() < Duration::from_secs(20), "a script is sent");
        wire.clear();
        kv.ping().await.unwrap();
        wire.delay(Duration::from_millis(480));
        kv.repair(std::slice::from_ref(&joined)).await.unwrap_err();
    }
    wire.clear();
    let students: Vec<String> =
        cmd("HKEYS").arg("lesson_student_algebra-1").query_async(&mut connection).await.unwrap();
    assert_eq!(students, ["bob"]);
    kv.join(&joined, None).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_an_error_without_the_password() {
    let mut server = Redis::start().unwrap();
    server.kill().unwrap();
    let url = format!("redis://:canary@127.0.0.1:{}", server.port());
    for url in [url.as_str(), "nonsense://canary", "redis://canary:canary@[::1:1"] {
        let error =
            timeout(Duration::from_secs(2), rollcall_keys::connect(options(url, ""))).await.unwrap().err().unwrap();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
