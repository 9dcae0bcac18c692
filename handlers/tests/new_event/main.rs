//! A fourth event is one file and one line in the table: the examples are compiled, run and asked, through the libraries'
//! public items alone, and README shows the first.
//!
//! This test is a binary of its own (`harness = false`): started by itself it is the test; started by the test it is the
//! gateway of an example.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../examples/raise_hand.rs"]
mod raise_hand;
#[path = "../../examples/vote.rs"]
mod vote;

use std::process::ExitCode;

use common::{Classroom, SOON};
use rollcall_loadtest::{Client, Gateway, GatewayOptions};
use serde_json::json;

const README: &str = include_str!("../../../README.md");
const RAISE_HAND: &str = include_str!("../../examples/raise_hand.rs");
/// Names the example whose gateway this process is.
const EXAMPLE: &str = "NEW_EVENT_EXAMPLE";

fn main() -> ExitCode {
    match std::env::var(EXAMPLE).as_deref() {
        Ok("raise_hand") => return raise_hand::main(),
        Ok("vote") => return vote::main(),
        _ => {}
    }
    assert!(README.contains(RAISE_HAND), "the README has another text of raise_hand.rs");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(raise_hand_is_answered());
    runtime.block_on(votes_are_counted_in_the_lesson());
    println!("the examples' events work");
    ExitCode::SUCCESS
}

fn start(example: &str) -> Gateway {
    let binary = std::env::current_exe().unwrap();
    Gateway::start(GatewayOptions::new(binary).env(EXAMPLE, example)).unwrap()
}

async fn raise_hand_is_answered() {
    let gateway = start("raise_hand");
    let room = Classroom::new();
    let mut bob = Client::connect(gateway.address()).await.unwrap();
    bob.connect_request(&room.participant("bob"), &room.id, "web").await.unwrap();

    let by = room.agent("web", "bob");
    bob.send(&json!({"type": "raise_hand", "ref": 2, "payload": {"hand": "left"}})).await.unwrap();
    let ack = common::next_text(&mut bob, SOON).await;
    let data = format!(r#"{{"by":"{by}","hand":"left"}}"#);
    assert_eq!(ack, format!(r#"{{"type":"ack","ref":2,"status":"SUCCESS","data":{data}}}"#));

    // It is an event like the others: its payload is checked, it is counted, and the old ones are still there.
    let ack = bob.request("raise_hand", json!({"hand": 7})).await.unwrap();
    assert_eq!(ack["message"], "invalid payload", "{ack}");
    let counted = gateway.metric("rollcall_function_invocations_total", &["function=\"raise_hand\""]).unwrap();
    assert!(counted >= 1.0, "{counted}");
    let ack = bob.join_lesson("no-such-lesson").await.unwrap();
    assert_eq!(ack["message"], "lesson not found", "{ack}");
}

async fn votes_are_counted_in_the_lesson() {
    let gateway = start("vote");
    let room = Classroom::new();
    let mut bob = Client::connect(gateway.address()).await.unwrap();
    bob.connect_request(&room.participant("bob"), &room.id, "web").await.unwrap();
    let ack = bob.request("vote", json!({"yes": true})).await.unwrap();
    assert_eq!(ack["message"], "lesson_id is required", "{ack}");
}
