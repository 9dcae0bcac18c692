//! Nodes whose clocks are wrong: presence depends on the database's clock, on the stream's offsets and on orders
//! without a clock.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};
use serde_json::{Value, json};

use crate::common::{Agent, Backend, Classroom, SOON, Servers, session_error, until};

const LEASE: Duration = Duration::from_secs(3);

/// Sets a wrong wall clock. Timers use the monotonic clock, which cannot be set.
fn with_a_clock(options: &GatewayOptions, name: &str, value: impl ToString) -> GatewayOptions {
    let libraries = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let libraries = libraries.map(|folder: PathBuf| folder.join("faketime/libfaketimeMT.so.1"));
    let library = libraries.into_iter().find(|library| library.exists());
    let library = library.expect("no libfaketime: install the Debian package faketime");
    let options = options.clone().env("LD_PRELOAD", library.display()).env("FAKETIME_DONT_FAKE_MONOTONIC", 1);
    options.env(name, value)
}

fn leased(options: &GatewayOptions) -> GatewayOptions {
    options.clone().env("ROLLCALL_LEASE", format!("{}s", LEASE.as_secs()))
}

/// Returns a token that expires this number of minutes after the correct time.
fn ends_in(room: &Classroom, name: &str, minutes: u64) -> String {
    let end = SystemTime::now() + Duration::from_secs(60 * minutes);
    room.token_with(name, &json!({"exp": token::seconds(end)}))
}

/// Enters with `resume`. Returns the agent and connect_success.
async fn enters(node: &Gateway, room: &Classroom, token: &str, resume: Value) -> (Agent, Value) {
    let mut client = Client::connect(node.address()).await.unwrap();
    let mut request = room.connect_request(token, "web");
    request["resume"] = resume;
    let success = client.connect_request_with(request).await.unwrap();
    (Agent::of(client, &success), success)
}

/// Expects that a connect is refused, and returns the error.
async fn refused(node: &Gateway, room: &Classroom, token: &str) -> Option<Value> {
    let mut client = Client::connect(node.address()).await.unwrap();
    let payload = room.connect_request(token, "web");
    client.send(&json!({"type": "connect_request", "payload": payload})).await.unwrap();
    let answer = client.next_message(SOON).await.unwrap();
    (answer["type"] != "connect_success").then(|| answer["payload"]["type"].clone())
}

#[tokio::test]
async fn clocks_that_are_wrong_by_five_minutes_change_nothing() {
    let _held = crate::common::measures_time().await;
    let right = Backend::start(Some(Servers::shared()), leased);
    let options = leased(&right.beside());
    let mut fast = Gateway::start(with_a_clock(&options, "FAKETIME", "+5m")).unwrap();
    let slow = Gateway::start(with_a_clock(&options, "FAKETIME", "-5m")).unwrap();
    let room = right.classroom();
    let tokens = ["ada", "bob", "carl", "dan"].map(|name| ends_in(room, name, 60));
    // The clocks are wrong by five minutes, so only the validity of tokens is wrong by as much.
    let ended = ends_in(room, "eve", 2);
    assert_eq!(refused(&fast, room, &ended).await, Some(json!("unauthenticated")));
    assert_eq!(refused(&slow, room, &ended).await, None);
    let nobody = async || right.live(room).await;
    until("nobody", SOON, nobody, Vec::is_empty).await;
    let before = right.history(room).await;

    let mut witness = right.participant(room, "witness").await;
    right.settled(room, [&mut witness]).await;
    let (mut ada, _) = enters(&fast, room, &tokens[0], json!({})).await;
    let (mut bob, _) = enters(&slow, room, &tokens[1], json!({})).await;
    let (mut carl, start) = enters(&slow, room, &tokens[2], json!({})).await;
    let (mut dan, _) = enters(&fast, room, &tokens[3], json!({})).await;
    for agent in [&mut ada, &mut bob, &mut carl, &mut dan] {
        agent.joins(&room.algebra).await;
        witness.sees("entered", &agent.whom()).await;
    }
    // A client moves from a node whose clock is fast to one whose clock is slow. It keeps its session, and its earlier
    // connection is closed with `replaced`.
    let (mut moved, _) = enters(&slow, room, &tokens[0], json!({})).await;
    assert_eq!(moved.session, ada.session);
    session_error(&ada.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);
    // A client resumes on the other node, and misses nothing.
    let resume = json!({"epoch": start["epoch"], "offset": start["offset"], "lesson_id": room.algebra});
    let missed = json!({"line": 1});
    right.publish(&format!("lesson.{}.board", room.algebra), &missed);
    let (mut resumed, success) = enters(&fast, room, &tokens[2], resume).await;
    assert_eq!((&success["recovered"], resumed.session), (&json!(true), carl.session));
    while resumed.client.next_event(SOON).await.unwrap().body != missed {}
    let back = enters(&slow, room, &tokens[2], json!({})).await.0;
    right.nothing_came(room, [&mut witness]).await;

    // The node with the fast clock is killed. Its lease ends by the database's clock, and the other leases go on.
    let died = Instant::now();
    fast.kill().unwrap();
    witness.sees("left", &dan.whom()).await;
    assert!(died.elapsed() < LEASE + Duration::from_secs(5), "after {:?}", died.elapsed());
    right.nothing_came(room, [&mut witness]).await;
    let gone = format!("{}|{}|node_lost", dan.session, dan.id);
    assert_eq!(right.history(room).await, [before, vec![gone]].concat());
    let stay = [&witness, &moved, &bob, &back].map(|agent| format!("{}|{}", agent.session, agent.id));
    assert_eq!(right.live(room).await, stay);
    moved.joins(&room.biology).await;

    // All times in the rows are the database's.
    let strange = "select (select count(*) from agent_session where started_at not between
            clock_timestamp() - interval '2 minutes' and clock_timestamp())
        + (select count(*) from agent_session_history where isempty(lifetime)
            or lower(lifetime) < clock_timestamp() - interval '2 minutes' or upper(lifetime) > clock_timestamp())";
    assert_eq!(right.value(strange).await, "0");
}

#[tokio::test]
async fn setting_a_clock_ends_only_sessions_whose_token_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let own = Backend::embedded().another(|options| {
        let options = options.clone().env("ROLLCALL_WORKERS", 1).env("FAKETIME_CACHE_DURATION", 1);
        with_a_clock(&options, "FAKETIME_TIMESTAMP_FILE", clock.display())
    });
    let room = own.classroom();
    let mut stays = own.participant(room, "alice").await;
    let mut ends = own.enters(room, &ends_in(room, "bob", 2)).await;
    let mut greeting = own.client().await;
    fs::write(&clock, "+5m").unwrap();
    session_error(&ends.client.expect_close(SOON).await.unwrap(), "token_expired", 401, 3005);
    // These connections were checked in the same sweep, and stay open.
    greeting.connect_request(&room.participant("carl"), &room.id, "web").await.unwrap();
    stays.joins(&room.algebra).await;
}
