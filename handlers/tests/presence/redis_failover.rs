//! Redis fails over under a running gateway. Removals that the failover lost, or that no node would carry out, are
//! carried out anyway.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rollcall_loadtest::Gateway;
use rollcall_loadtest::servers::Redis;
use serde_json::Value;

use crate::common::{Backend, Keys, SOON, Servers, student_hash, until};

/// Within this time after a failover's end, everything works.
const HEALED: Duration = Duration::from_secs(5);

fn lead(path: &Path, url: &str) {
    fs::write(path.with_extension("new"), url).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

/// Returns the keys' state in the answer of /readyz.
fn keys_of(gateway: &Gateway) -> (u16, Value) {
    let (status, body) = gateway.get("/readyz").unwrap();
    (status, serde_json::from_str::<Value>(&body).unwrap()["backends"]["keys"].clone())
}

#[tokio::test]
async fn a_failover_of_redis_heals_and_a_removal_that_it_lost_is_repeated() {
    let (old, new) = (Redis::start().unwrap(), Redis::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("redis-url");
    lead(&path, &old.url());
    let servers = Servers { redis: old.url(), ..Servers::shared() };
    let file = path.to_str().unwrap().to_owned();
    let backend = Backend::start(Some(servers), |options| {
        options.clone().without("REDIS_URL").env("REDIS_URL_FILE", &file).env("ROLLCALL_LOG", "info")
    });
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    let mut carol = backend.participant(room, "carol").await;
    carol.joins(&room.algebra).await;
    let mut earlier = backend.participant(room, "dora").await;
    earlier.joins(&room.algebra).await;
    alice.joins(&room.algebra).await;
    bob.joins(&room.algebra).await;
    let students = student_hash(&room.algebra);
    let (user, sid) = (room.user("alice"), alice.sid.clone());

    // The new server has these fields, and gets no later write.
    let (mut at_old, mut at_new) = (Keys::of(&old.url()).await, Keys::of(&new.url()).await);
    let _: String = at_new.ask(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]).await;
    until("a copy", SOON, async || at_new.field(&students, &user).await, |copied| *copied == Some(sid.clone())).await;
    let _: String = at_new.ask(&["REPLICAOF", "NO", "ONE"]).await;
    carol.joins(&room.biology).await;
    let mut later = backend.enters_as(room, &room.participant("dora"), "ios").await;
    later.joins(&room.algebra).await;
    alice.leaves().await;
    until("alice's removal", SOON, async || at_old.field(&students, &user).await, Option::is_none).await;
    let kept = "select count(*) from removal";
    backend.wait_for_rows(kept, &["2"]).await;

    // The old server becomes a replica, and its connections stay open.
    let _: String = at_old.ask(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]).await;
    let refused = async || bob.client.join_lesson(&room.biology).await.unwrap()["message"].clone();
    until("a refusal", SOON, refused, |message| message == "try again later").await;
    let said = async || keys_of(&backend.gateway);
    let names_it = |(status, keys): &(u16, Value)| {
        let problem = keys["problem"].as_str().unwrap_or_default();
        *status == 200 && keys["up"] == false && problem.contains("let REDIS_URL lead to the primary")
    };
    until("/readyz", SOON, said, names_it).await;
    let check = backend.beside().arg("check").command().output().unwrap();
    let lines = String::from_utf8(check.stdout).unwrap();
    let line = lines.lines().find(|line| line.contains("keys")).unwrap();
    assert!(!check.status.success() && line.starts_with("FAIL") && line.contains("lead to the primary"), "{line}");

    lead(&path, &new.url());
    let joins = async || bob.client.join_lesson(&room.biology).await.unwrap()["status"].clone();
    until("join_lesson", HEALED, joins, |status| status == "SUCCESS").await;
    for user in [user, room.user("carol")] {
        until("each removal again", HEALED, async || at_new.field(&students, &user).await, Option::is_none).await;
    }
    until("/readyz", HEALED, async || keys_of(&backend.gateway).1["up"].clone(), |up| *up == true).await;
    let later = Some(later.sid.clone());
    until("the latest join", HEALED, async || at_new.field(&students, &room.user("dora")).await, |at| *at == later)
        .await;
    let biology = student_hash(&room.biology);
    assert_eq!(at_new.field(&biology, &room.user("bob")).await, Some(bob.sid.clone()));
}

#[tokio::test]
async fn a_field_held_for_a_connection_that_has_ended_is_removed() {
    let backend = Backend::real().another(Clone::clone);
    let room = backend.classroom();
    let mut keys = backend.keys().await.unwrap();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let students = student_hash(&room.algebra);
    // A field of a connection whose end was never reported, and the field of a live connection.
    let carl = backend.participant(room, "carl").await;
    let (gone, user) = (carl.sid.clone(), room.user("carl"));
    carl.leaves().await;
    let _: i64 = keys.ask(&["HSET", &students, &user, &gone]).await;
    let held = |user: &str, sid: &str| {
        format!(
            "insert into stale_field (node_id, lesson_id, user_id, sid, held) \
             select id, '{}', '{user}', '{sid}', true from node where not taken returning 1",
            room.algebra
        )
    };
    backend.value(&held(&user, &gone)).await;
    backend.value(&held(&room.user("alice"), &alice.sid)).await;
    until("carl's removal", SOON, async || keys.field(&students, &user).await, Option::is_none).await;
    assert_eq!(keys.field(&students, &room.user("alice")).await, Some(alice.sid.clone()));
    let left = format!("select user_id from stale_field where lesson_id = '{}'", room.algebra);
    backend.wait_for_rows(&left, &[&room.user("alice")]).await;
}
