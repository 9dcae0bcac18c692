//! The Grafana dashboard: each query of each panel has data if there is something to see, on both of two nodes.

use std::time::Duration;

use futures_util::future::join_all;
use rollcall_loadtest::servers::{Prometheus, Redis};
use rollcall_loadtest::{Client, Gateway, GatewayOptions};
use serde_json::{Value, json};

use crate::common::{Backend, Classroom, FunctionsFile, SOON, Servers, polling_request, until};

const DASHBOARD: &str = include_str!("../../../runtime/deploy/helm/rollcall/files/dashboard.json");
/// Prometheus scrapes every second, and a rate needs two scrapes.
const LATE: Duration = Duration::from_secs(60);

/// An address at which no server answers.
const NOWHERE: &str = "http://127.0.0.1:1/";

/// A query as Grafana sends it, and its panel.
type Query = (String, String);

/// Returns all queries of the dashboard. A query in a row that is repeated for each node is returned once for each
/// node.
fn queries(nodes: &[String]) -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut queries, mut row, mut each) = (Vec::new(), String::new(), false);
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "row" {
            (row, each) = (title.to_owned(), panel["repeat"] == "instance");
            continue;
        }
        let all = [".+".to_owned()];
        for node in if each { nodes } else { &all } {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap().replace("$job", ".+").replace("$instance", node);
                let query = query.replace("$__rate_interval", "1m");
                assert!(!query.contains('$'), "a variable that this test does not know: {query}");
                queries.push((format!("{row} / {title}"), query));
            }
        }
    }
    queries
}

/// Lets an agent enter on a node, join a lesson, call a function, and leave. Other clients are refused.
async fn visit(node: &Gateway, room: &Classroom, name: &str) {
    let mut client = Client::connect(node.address()).await.unwrap();
    client.connect_request(&room.participant(name), &room.id, name).await.unwrap();
    client.join_lesson(&room.algebra).await.unwrap();
    client.request("away", json!({})).await.unwrap();
    client.close().await.unwrap();
    let mut stranger = Client::connect(node.address()).await.unwrap();
    stranger.connect_request("no token", &room.id, "web").await.unwrap_err();
    assert_eq!(polling_request(node.address(), "GET", "nobody's", "").await.0, 400);
}

#[tokio::test]
async fn every_panel_of_the_dashboard_has_data() {
    let mut redis = Redis::start().unwrap();
    let functions = FunctionsFile::new(&[("away", NOWHERE, "")]);
    let away = |options: &GatewayOptions| {
        let options = functions.on(options).env("ROLLCALL_WEBHOOK_URL", NOWHERE);
        options.env("ROLLCALL_WEBHOOK_SECRET", rollcall_loadtest::webhook::SECRET)
    };
    let first = Backend::start(Some(Servers { redis: redis.url(), ..Servers::shared() }), away);
    let second = Gateway::start(away(&first.beside())).unwrap();
    let room = first.classroom();
    let mut alice = first.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    redis.kill().unwrap();

    // NATS before 2.10 does not say when an event was stored, and the time to a push counts from then. The log of the
    // embedded gateway says when an event was stored.
    let embedded = Backend::embedded();
    let other = embedded.classroom();
    let watcher = embedded.participant(other, "watcher").await;

    let nodes = [first.gateway.admin(), second.admin()].map(|address| address.to_string());
    let prometheus = Prometheus::of(nodes.iter().chain([&embedded.gateway.admin().to_string()])).unwrap();
    let mut left = queries(&nodes);
    assert!(left.len() > 40, "{} queries", left.len());
    let look = async || {
        let visits = [(&first.gateway, room, "bob"), (&second, room, "carol"), (&embedded.gateway, other, "dave")];
        join_all(visits.map(|(node, room, name)| visit(node, room, name))).await;
        left.retain(|(_, query)| prometheus.value(query).unwrap().is_none());
        left.clone()
    };
    until("data in each panel", LATE, look, Vec::is_empty).await;
    // A client's faults set off no alert about connects.
    let runs = |labels: &[&str]| first.gateway.metric("rollcall_function_invocations_total", labels).unwrap();
    assert!(runs(&["function=\"connect\"", "outcome=\"refused\""]) >= 1.0);
    assert_eq!(runs(&["function=\"connect\"", "outcome=\"error\""]), 0.0);
    assert!(runs(&["function=\"join_lesson\"", "outcome=\"error\""]) >= 1.0, "Redis is away");
    // The agents that were connected have got the events of the others.
    for mut agent in [alice, watcher] {
        agent.client.next_event(SOON).await.unwrap();
    }
}
