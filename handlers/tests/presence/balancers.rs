//! PROTOCOL 11: long-polling behind nginx and HAProxy, with the examples of loadtest/socketio and of the compose file,
//! and what happens if a balancer is not sticky.

use std::collections::BTreeSet;

use crate::common::{Backend, Polling, SOON, Servers, polling_request};
use rollcall_loadtest::servers::{Balancer, BalancerKind};
use rollcall_loadtest::{Gateway, GatewayOptions};
use serde_json::json;

#[tokio::test]
async fn sessions_stay_on_their_node() {
    let first = Backend::start(Some(Servers::shared()), Clone::clone);
    let second = Gateway::start(first.beside()).unwrap();
    for kind in [BalancerKind::Nginx, BalancerKind::Haproxy] {
        stay_on_their_node(&first, &second, kind).await;
    }
}

#[tokio::test]
async fn sessions_stay_on_the_node_whose_label_their_id_has() {
    let label = |options: &GatewayOptions, label| options.clone().env("ROLLCALL_NODE_LABEL", label);
    let first = Backend::start(Some(Servers::shared()), |options| label(options, "node1"));
    let second = Gateway::start(label(&first.beside(), "node2")).unwrap();
    stay_on_their_node(&first, &second, BalancerKind::Compose).await;
}

async fn stay_on_their_node(first: &Backend, second: &Gateway, kind: BalancerKind) {
    let balancer = Balancer::start(kind, [first.gateway.address(), second.address()]).unwrap();
    let room = first.classroom();
    let mut clients = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let mut client = Polling::connect(balancer.address(), &json!({"token": room.participant(name)})).await;
        client.joins(&room.algebra).await;
        clients.push(client);
    }
    let nodes: BTreeSet<_> = clients.iter().map(Polling::node).collect();
    assert_eq!(nodes.len(), 2, "both nodes have sessions behind {kind:?}: {nodes:?}");
    let body = json!({"behind": format!("{kind:?}")});
    first.publish(&format!("lesson.{}.board", room.algebra), &body);
    for client in &mut clients {
        client.event("board", &body).await;
    }
}

#[tokio::test]
async fn a_request_on_the_wrong_node_is_refused_and_counted() {
    let first = Backend::start(Some(Servers::shared()), Clone::clone);
    let second = Gateway::start(first.beside()).unwrap();
    let room = first.classroom();
    let client = Polling::connect(first.gateway.address(), &json!({"token": room.participant("a")})).await;
    let unknown = (400, r#"{"code":1,"message":"Session ID unknown"}"#.to_owned());
    assert_eq!(polling_request(second.address(), "GET", &client.sid, "").await, unknown);
    assert_eq!(polling_request(second.address(), "POST", &client.sid, "41").await, unknown);
    let twice = |count| count == 2.0;
    second.wait_for_metric("rollcall_dropped_total", &[r#"reason="unknown_sid""#], SOON, twice).unwrap();
}
