//! Redis servers that take over from each other, and servers that refuse commands.
use std::{path::Path, time::Duration};

use bb8_redis::redis::{aio::MultiplexedConnection, cmd};
use rollcall_base::BackendUrl;
use rollcall_keys::LessonKeys;
use rollcall_loadtest::servers::Redis;
use tokio::time::{Instant, sleep};

use crate::bench::{InRedis, connected, fresh, hash, participant, raw, sid, stale};

/// Within this time after a failover's end, everything works.
const HEALED: Duration = Duration::from_secs(5);

/// Returns the address in this file, as with REDIS_URL_FILE.
fn in_file(path: &Path, url: &str) -> BackendUrl {
    lead(path, url);
    BackendUrl::in_file(url, "REDIS_URL", path.to_owned(), |_| Ok(()))
}

fn lead(path: &Path, url: &str) {
    std::fs::write(path.with_extension("new"), url).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

async fn tell(connection: &MultiplexedConnection, words: &[&str]) -> String {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection.clone()).await.unwrap()
}

async fn replicates(replica: &Redis, primary: &Redis) {
    let connection = raw(&replica.url()).await;
    tell(&connection, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    until(async || tell(&connection, &["INFO", "replication"]).await.contains("master_link_status:up")).await;
}

pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < Duration::from_secs(20), "it does not happen");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Calls until a call succeeds.
pub(crate) async fn heals(kv: &dyn LessonKeys) {
    let since = Instant::now();
    while let Err(error) = kv.join(&participant("algebra-1", "alice", 1), None).await {
        assert!(since.elapsed() < HEALED, "{error}");
    }
}

/// Returns the error of keys that cannot be written.
async fn refusal(kv: &dyn LessonKeys) -> String {
    let pinged = kv.ping().await.expect_err("a ping writes").to_string();
    kv.probe("rollcall:marker:1").await.expect_err("a probe writes");
    pinged
}

#[tokio::test]
async fn a_primary_that_was_demoted_is_left_for_the_new_one() {
    let (old, new) = (Redis::start().unwrap(), Redis::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    let kv = connected(in_file(&path, &old.url()), "").await;
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    replicates(&old, &new).await;
    kv.join(&participant("algebra-1", "alice", 1), None).await.expect_err("refused");
    let said = refusal(&*kv).await;
    assert!(said.contains("let REDIS_URL lead to the primary"), "{said}");
    lead(&path, &new.url());
    heals(&*kv).await;
    let bench = InRedis::at(&new.url(), "").await;
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, hash([("alice", &sid(1))]));
}

#[tokio::test]
async fn a_password_that_was_rotated_is_read_again() {
    let server = Redis::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", server.port());
    let operator = raw(&server.url()).await;
    tell(&operator, &["CONFIG", "SET", "requirepass", "first"]).await;
    let kv = connected(in_file(&path, &url("first")), "").await;
    tell(&operator, &["CONFIG", "SET", "requirepass", "second"]).await;
    // Redis keeps connections that were authenticated before.
    tell_number(&operator, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let said = refusal(&*kv).await;
    assert!(said.contains("refuses the user and password") && !said.contains("first"), "{said}");
    lead(&path, &url("second"));
    heals(&*kv).await;
}

async fn tell_number(connection: &MultiplexedConnection, words: &[&str]) -> i64 {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection.clone()).await.unwrap()
}

#[tokio::test]
async fn a_server_that_does_not_work_says_what_to_mend_and_is_used_again() {
    let server = Redis::start().unwrap();
    let kv = connected(server.url(), "").await;
    let operator = raw(&server.url()).await;
    let states = [
        (["min-replicas-to-write", "1", "0"], "min-replicas-to-write: start them"),
        (["maxmemory", "1", "0"], "raise its maxmemory"),
    ];
    for ([setting, bad, good], hint) in states {
        tell(&operator, &["CONFIG", "SET", setting, bad]).await;
        let said = refusal(&*kv).await;
        assert!(said.contains(hint), "{said}");
        tell(&operator, &["CONFIG", "SET", setting, good]).await;
        heals(&*kv).await;
    }
}

/// A replica takes over that has alice's field and lacks its removal: the loss is noticed. `info` says whether INFO is
/// allowed.
async fn a_lost_removal_is_noticed(info: bool) {
    let (old, new) = (Redis::start().unwrap(), Redis::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    if !info {
        for server in [&old, &new] {
            tell(&raw(&server.url()).await, &["ACL", "SETUSER", "default", "-info"]).await;
        }
    }
    let kv = connected(in_file(&path, &old.url()), "").await;
    let alice = participant("algebra-1", "alice", 1);
    kv.join(&alice, None).await.unwrap();
    assert!(!kv.probe("rollcall:marker:1").await.unwrap());
    assert!(kv.probe("rollcall:marker:1").await.unwrap());
    let replica = raw(&new.url()).await;
    tell(&replica, &["REPLICAOF", "127.0.0.1", &old.port().to_string()]).await;
    let bench = InRedis::at(&old.url(), "").await;
    let copied =
        async || tell_number(&replica, &["EXISTS", "lesson_student_algebra-1", "rollcall:marker:1"]).await == 2;
    until(copied).await;
    tell(&replica, &["REPLICAOF", "NO", "ONE"]).await;
    kv.remove(&[stale(&alice, None)]).await.unwrap();
    assert_eq!(fresh(&bench, "lesson_student_algebra-1").await, None);

    tell(&raw(&old.url()).await, &["REPLICAOF", "127.0.0.1", "1"]).await;
    lead(&path, &new.url());
    let since = Instant::now();
    let kept = loop {
        match kv.probe("rollcall:marker:1").await {
            Ok(kept) => break kept,
            Err(error) => assert!(since.elapsed() < HEALED, "{error}"),
        }
    };
    assert!(!kept, "writes are lost");
    assert!(kv.probe("rollcall:marker:1").await.unwrap(), "and noticed once");
}

#[tokio::test]
async fn a_removal_that_a_failover_lost_is_noticed() {
    a_lost_removal_is_noticed(true).await;
}

#[tokio::test]
async fn a_removal_that_a_failover_lost_is_noticed_without_the_right_to_info() {
    a_lost_removal_is_noticed(false).await;
}

/// No writes were lost, but the replication's id alone cannot prove that.
#[tokio::test]
async fn a_failover_is_noticed_by_the_replications_id() {
    let server = Redis::start().unwrap();
    let kv = connected(server.url(), "").await;
    kv.probe("rollcall:marker:1").await.unwrap();
    assert!(kv.probe("rollcall:marker:1").await.unwrap());
    let operator = raw(&server.url()).await;
    tell(&operator, &["REPLICAOF", "127.0.0.1", "1"]).await;
    tell(&operator, &["REPLICAOF", "NO", "ONE"]).await;
    assert!(!kv.probe("rollcall:marker:1").await.unwrap());
    assert!(kv.probe("rollcall:marker:1").await.unwrap());
}
