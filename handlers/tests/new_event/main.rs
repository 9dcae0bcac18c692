//! A new event needs one file and one line in the table. The examples, which use public items only, are compiled, run
//! and called; README shows the first one.
//!
//! This test is a binary of its own (`harness = false`): started by cargo it is the test, started by the test it is the
//! gateway of an example.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../examples/raise_hand.rs"]
mod raise_hand;
#[path = "../../examples/vote.rs"]
mod vote;

use std::process::ExitCode;

use common::{Agent, Backend, SOON, Servers};
use rollcall_loadtest::{Client, Gateway, GatewayOptions, client::Event};
use serde_json::{Value, json};

const README: &str = include_str!("../../../README.md");
const RAISE_HAND: &str = include_str!("../../examples/raise_hand.rs");
/// The variable that names the example whose gateway this process is.
const EXAMPLE: &str = "NEW_EVENT_EXAMPLE";

fn main() -> ExitCode {
    match std::env::var(EXAMPLE).as_deref() {
        Ok("raise_hand") => return raise_hand::main(),
        Ok("vote") => return vote::main(),
        _ => {}
    }
    assert!(README.contains(RAISE_HAND), "the README has another text of raise_hand.rs");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for servers in [None, Some(Servers::shared())] {
        runtime.block_on(raise_hand_is_answered_and_seen(servers));
    }
    runtime.block_on(votes_are_counted_in_the_lesson());
    println!("the examples' events work");
    ExitCode::SUCCESS
}

/// Returns the options of an example's gateway.
fn program(example: &str) -> GatewayOptions {
    GatewayOptions::new(std::env::current_exe().unwrap()).env(EXAMPLE, example)
}

/// Returns the event that the other agents of the lesson get.
fn raised(by: &Agent, hand: &str) -> Value {
    json!({
        "id": {"entity_type": "hand", "operation": "raised", "sequence_id": by.session},
        "payload": {"by": by.id, "hand": hand},
    })
}

async fn raise_hand_is_answered_and_seen(servers: Option<Servers>) {
    let backend = Backend::of(program("raise_hand"), servers, GatewayOptions::clone);
    let room = backend.classroom();
    // A classmate is on another node if the backend allows one.
    let other = backend.servers().map(|servers| Gateway::start(servers.of(program("raise_hand"))).unwrap());
    let node = other.as_ref().unwrap_or(&backend.gateway);

    let mut bob = backend.participant(room, "bob").await;
    let ack = bob.client.request("raise_hand", json!({"hand": "left"})).await.unwrap();
    assert_eq!(ack["message"], "not in a lesson", "{ack}");
    let mut alice = backend.teacher(room, "alice").await;
    let mut outside = backend.participant(room, "outside").await;
    let mut far = enters_on(node, &room.connect_request(&room.participant("far"), "web")).await;
    let mut resuming = room.connect_request(&room.participant("eve"), "web");
    resuming["resume"] = json!({});
    let mut eve = Client::connect(node.address()).await.unwrap();
    let start = eve.connect_request_with(resuming.clone()).await.unwrap();
    eve.close().await.unwrap();
    for agent in [&mut bob, &mut alice, &mut far] {
        agent.joins(&room.algebra).await;
    }
    backend.settled(room, [&mut bob, &mut alice, &mut outside, &mut far]).await;

    bob.client.send(&json!({"type": "raise_hand", "ref": "up", "payload": {"hand": "left"}})).await.unwrap();
    let ack = common::next_text(&mut bob.client, SOON).await;
    let data = format!(r#"{{"by":"{}","hand":"left"}}"#, bob.id);
    assert_eq!(ack, format!(r#"{{"type":"ack","ref":"up","status":"SUCCESS","data":{data}}}"#));
    for classmate in [&mut alice, &mut far] {
        assert_eq!(classmate.client.next_event(SOON).await.unwrap().body, raised(&bob, "left"));
    }
    resuming["resume"] = json!({"epoch": start["epoch"], "offset": start["offset"], "lesson_id": room.algebra});
    let mut eve = Client::connect(node.address()).await.unwrap();
    assert_eq!(eve.connect_request_with(resuming).await.unwrap()["recovered"], true);
    while eve.next_event(SOON).await.unwrap().body != raised(&bob, "left") {}
    eve.close().await.unwrap();
    // The event was not echoed to its sender, and no other agent got it.
    let is_hand = |event: &Event| event.body["id"]["entity_type"] == "hand";
    let lesson = backend.fence_on(&format!("lesson.{}.board", room.algebra));
    assert!(!lesson.read_to(&mut bob).await.iter().any(is_hand));
    let classroom = backend.fence(room);
    assert!(!classroom.read_to(&mut outside).await.iter().any(is_hand));
    if let Some(stored) = backend.stored(&format!("lesson.{}.hand", room.algebra), 1).await {
        let headers = ["Sender-Agent-Id", "Entity-Event-Type", "Entity-Event-Operation", "Is-Internal"];
        assert_eq!(headers.map(|name| stored[0].header(name)), [&bob.id, "hand", "raised", "false"]);
        assert_eq!((stored.len(), stored[0].body.as_str()), (1, data.as_str()));
    }

    // The new event behaves as the others do: its payload is checked, it is counted, and the existing events still
    // work.
    let ack = bob.client.request("raise_hand", json!({"hand": 7})).await.unwrap();
    assert_eq!(ack["message"], "invalid payload", "{ack}");
    let labels = ["function=\"raise_hand\"", "outcome=\"success\""];
    assert_eq!(backend.gateway.metric("rollcall_function_invocations_total", &labels).unwrap(), 1.0);
    assert!(backend.gateway.metric("rollcall_events_published_total", &["outcome=\"stored\""]).unwrap() >= 1.0);
    let ack = bob.client.join_lesson("no-such-lesson").await.unwrap();
    assert_eq!(ack["message"], "lesson not found", "{ack}");
}

async fn enters_on(node: &Gateway, request: &Value) -> Agent {
    let mut client = Client::connect(node.address()).await.unwrap();
    let success = client.connect_request_with(request.clone()).await.unwrap();
    Agent::of(client, &success)
}

async fn votes_are_counted_in_the_lesson() {
    let backend = Backend::of(program("vote"), None, GatewayOptions::clone);
    let room = backend.classroom();
    let mut bob = backend.participant(room, "bob").await;
    let ack = bob.client.request("vote", json!({"yes": true})).await.unwrap();
    assert_eq!(ack["message"], "not in a lesson", "{ack}");
    bob.joins(&room.algebra).await;
    for votes in 1..=2 {
        let ack = bob.client.request("vote", json!({"yes": true})).await.unwrap();
        assert_eq!(ack["data"], json!({"votes": votes}), "{ack}");
    }
}
