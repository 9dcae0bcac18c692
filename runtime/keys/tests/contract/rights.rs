//! Users of an ACL: which rights are needed, and the error if one is missing.
use rollcall_loadtest::servers::{Redis, shared};

use crate::bench::{connected, options, participant, stale};

/// The rights that `runtime/SETTINGS.md` lists, without INFO. INFO only serves to notice failovers that lost nothing.
const RIGHTS: &str = "-@all +@connection +script|load +evalsha +time +get +set +del +expire +exists +hget +hgetall +hset +hdel \
    +hsetnx +hexists";
const OF_CLUSTERS: &str = "+asking +cluster|slots +cluster|info";

async fn works(url: &str, prefix: &str) {
    let kv = connected(url, prefix).await;
    let alice = participant("algebra-1", "alice", 1);
    kv.join(&alice, None).await.unwrap();
    kv.probe("rollcall:marker:1").await.unwrap();
    assert!(kv.probe("rollcall:marker:1").await.unwrap());
    kv.remove(&[stale(&alice, None)]).await.unwrap();
    assert!(kv.repair(&[alice]).await.unwrap());
    kv.erase(&rollcall_schema::UserId::parse("alice").unwrap(), &[]).await.unwrap();
}

#[tokio::test]
async fn the_rights_that_are_listed_are_enough_and_each_is_needed() {
    let server = Redis::start().unwrap();
    server.tell(&format!("ACL SETUSER gateway on >canary ~app:* {RIGHTS}")).unwrap();
    let url = format!("redis://gateway:canary@127.0.0.1:{}", server.port());
    works(&url, "app:").await;
    let needed =
        ["script|load", "evalsha", "time", "set", "expire", "exists", "hget", "hset", "hdel", "hsetnx", "hexists"];
    for right in needed {
        server.tell(&format!("ACL SETUSER gateway -{right}")).unwrap();
        let said = rollcall_keys::connect(options(url.as_str(), "app:")).await.err().expect(right).to_string();
        assert!(said.contains("lacks a right: give it, by ACL SETUSER"), "{right}: {said}");
        assert!(!said.contains("canary") && !said.contains('\n'), "{said}");
        server.tell(&format!("ACL SETUSER gateway +{right}")).unwrap();
    }
    let said = rollcall_keys::connect(options(url.as_str(), "other:")).await.err().unwrap().to_string();
    assert!(said.contains("lacks a right"), "{said}");
    let said = rollcall_keys::connect(options(url.replace("canary", "wrong"), "app:")).await.err().unwrap().to_string();
    assert!(said.contains("refuses the user and password"), "{said}");
}

#[tokio::test]
async fn the_rights_of_a_cluster_are_enough() {
    let cluster = shared::redis_cluster();
    for port in cluster.ports() {
        let user = format!("ACL SETUSER gateway on >canary ~rights:* {RIGHTS} {OF_CLUSTERS}");
        rollcall_loadtest::servers::tell_redis(port, &user).unwrap();
    }
    works(&cluster.url().replace("://", "://gateway:canary@"), "rights:").await;
}
