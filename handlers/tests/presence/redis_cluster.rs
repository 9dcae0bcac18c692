//! A master of a Redis Cluster dies under a running gateway.

use std::time::Duration;

use rollcall_loadtest::GatewayOptions;
use rollcall_loadtest::servers::RedisCluster;
use serde_json::Value;

use crate::common::{Backend, Keys, SOON, Servers, student_hash, until};

/// Within this time after the cluster works, everything works.
const HEALED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_master_that_dies_is_named_and_what_it_lost_is_made_good() {
    let mut cluster = RedisCluster::start(None).unwrap();
    let servers = Servers { redis: cluster.url(), keys: cluster.ports(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), GatewayOptions::clone);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    alice.joins(&room.algebra).await;
    let students = student_hash(&room.algebra);
    let (user, sid) = (room.user("alice"), alice.sid.clone());
    let master = cluster.master_of(&students).unwrap();
    let at = format!("127.0.0.1:{}", cluster.ports()[master]);

    // Alice leaves while the removal of her field cannot be written.
    cluster.let_replicas_take_over(false).unwrap();
    cluster.node(master).kill().unwrap();
    let keys = || {
        let (status, body) = backend.gateway.get("/readyz").unwrap();
        (status, serde_json::from_str::<Value>(&body).unwrap()["backends"]["keys"].clone())
    };
    let named = |(status, keys): &(u16, Value)| {
        *status == 200 && keys["up"] == false && keys["problem"].as_str().unwrap_or_default().contains(&at)
    };
    until("/readyz", SOON, async || keys(), named).await;
    let refused = bob.client.join_lesson(&room.algebra).await.unwrap();
    assert_eq!(refused["message"], "try again later", "{refused}");
    alice.leaves().await;

    cluster.let_replicas_take_over(true).unwrap();
    cluster.master_of(&students).unwrap();
    let joins = async || bob.client.join_lesson(&room.algebra).await.unwrap()["status"].clone();
    until("join_lesson", HEALED, joins, |status| status == "SUCCESS").await;
    cluster.node(master).restart().unwrap();
    let mut look = Keys::at(&cluster.ports()).await;
    let field = async |look: &mut Keys, user: &str| look.field(&students, user).await;
    until("alice's removal", SOON, async || field(&mut look, &user).await, Option::is_none).await;
    assert_eq!(field(&mut look, &room.user("bob")).await, Some(bob.sid.clone()));
    assert_ne!(sid, bob.sid);
    until("/readyz", SOON, async || keys().1["up"].clone(), |up| *up == true).await;
}
