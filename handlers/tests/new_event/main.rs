//! A fourth event is one file and one line in the table: the README's example is compiled, run and asked, through the
//! libraries' public items alone.
//!
//! This test is a binary of its own (`harness = false`): started by itself it is the test; started by the test it is the
//! gateway with the longer table.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[allow(missing_docs, unreachable_pub, reason = "it is the README's text")]
mod raise_hand;

use std::process::ExitCode;

use common::{Classroom, SOON};
use rollcall_loadtest::{Client, Gateway, GatewayOptions};
use rollcall_runtime::{Resources, Table};
use serde_json::json;

const README: &str = include_str!("../../../README.md");
const FILE: &str = include_str!("raise_hand.rs");
const IS_GATEWAY: &str = "NEW_EVENT_IS_GATEWAY";

fn table(resources: &Resources) -> Table {
    rollcall::table(resources).on("raise_hand", raise_hand::Deps::new(resources), raise_hand::handle)
}

fn main() -> ExitCode {
    if std::env::var_os(IS_GATEWAY).is_some() {
        return rollcall_runtime::run(table);
    }
    the_readme_shows_what_is_compiled_here();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(the_new_event_is_answered());
    println!("the README's fourth event works");
    ExitCode::SUCCESS
}

fn the_readme_shows_what_is_compiled_here() {
    assert!(README.contains(FILE), "the README has another text of raise_hand.rs");
    let line = r#".on("raise_hand", raise_hand::Deps::new(resources), raise_hand::handle)"#;
    assert!(README.contains(line), "the README has another line for the table");
}

async fn the_new_event_is_answered() {
    let binary = std::env::current_exe().unwrap();
    let gateway = Gateway::start(GatewayOptions::new(binary).env(IS_GATEWAY, "1")).unwrap();
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
