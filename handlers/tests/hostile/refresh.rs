//! Tokens that expire during a session, and fresh ones that replace them.

use std::time::{Duration, Instant, SystemTime};

use rollcall_loadtest::client::{ClientError, Closing};
use rollcall_loadtest::token;
use serde_json::{Value, json};

use crate::common::{Agent, Backend, Classroom, Function, FunctionsFile, Reply, SOON, on_both_kinds, session_error};

on_both_kinds!(
    a_session_ends_with_its_token,
    a_session_ends_with_its_token_whatever_waits_for_its_answer,
    a_fresh_token_lets_the_session_go_on,
    a_token_that_does_not_hold_changes_nothing,
);

/// Returns the expiry of a token that expires soon, but not before a client has entered with it.
fn soon() -> u64 {
    token::seconds(SystemTime::now()) + 4
}

async fn refresh(agent: &mut Agent, token: &str) -> Value {
    agent.client.request("refresh", json!({"token": token})).await.unwrap()
}

async fn a_session_ends_with_its_token(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.enters(room, &room.token_with("alice", &json!({"exp": soon()}))).await;
    let entered = Instant::now();
    let closing = alice.client.expect_close(Duration::from_secs(30)).await.unwrap();
    session_error(&closing, "token_expired", 401, 3005);
    assert!(entered.elapsed() > Duration::from_secs(1), "not before its end");
    let history = format!("{}|{}|kicked", alice.session, alice.id);
    let id = &room.id;
    let query = format!("select id, agent_id, reason from agent_session_history where classroom_id = '{id}'");
    backend.wait_for_rows(&query, &[&history]).await;
}

async fn a_session_ends_with_its_token_whatever_waits_for_its_answer(backend: &Backend) {
    const CALLS: usize = 60;
    let function = Function::start(|_| Reply::Hang).await;
    let lines = "timeout = \"500ms\"\nopen_after = 1000";
    let file = FunctionsFile::new(&[("raise_hand", &function.url(), lines)]);
    let own = backend.another(|options| file.on(options));
    let room = own.classroom();
    let mut alice = own.enters(room, &room.token_with("alice", &json!({"exp": soon()}))).await;
    // All requests arrive before the first is answered, so from then on handlers run without a pause.
    for reference in 0..CALLS {
        alice.client.send(&json!({"type": "raise_hand", "ref": reference})).await.unwrap();
    }
    let mut acks = 0;
    let closing = loop {
        match alice.client.next_message(SOON).await {
            Ok(message) if message["type"] == "ack" => acks += 1,
            Ok(error) => break Closing { error: Some(error), ..alice.client.expect_close(SOON).await.unwrap() },
            Err(ClientError::Closed(closing)) => break closing,
            Err(error) => panic!("{error}"),
        }
    };
    session_error(&closing, "token_expired", 401, 3005);
    assert!(acks < CALLS, "the last of them was answered half a minute after the first");
}

async fn a_fresh_token_lets_the_session_go_on(backend: &Backend) {
    let room = backend.classroom();
    let end = soon();
    let mut alice = backend.enters(room, &room.token_with("alice", &json!({"exp": end}))).await;
    assert_eq!(refresh(&mut alice, &room.participant("alice")).await["status"], "SUCCESS");
    // Waits until the first token has expired, and a tick of the worker's clock would have ended the session.
    let left = end.saturating_sub(token::seconds(SystemTime::now()));
    alice.client.expect_silence(Duration::from_secs(left + 3)).await.unwrap();
    alice.joins(&room.algebra).await;
    // The new token expires earlier than the last. The latest token counts, not the longest.
    let end = soon();
    let ack = refresh(&mut alice, &room.token_with("alice", &json!({"exp": end}))).await;
    assert_eq!((&ack["status"], &ack["expires_at"]), (&json!("SUCCESS"), &json!(end)));
    session_error(&alice.client.expect_close(Duration::from_secs(30)).await.unwrap(), "token_expired", 401, 3005);
}

async fn a_token_that_does_not_hold_changes_nothing(backend: &Backend) {
    let (room, other): (&Classroom, &Classroom) = (backend.classroom(), backend.classroom());
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let with = |changes: Value| room.token_with("alice", &changes);
    for (token, message) in [
        (String::new(), "invalid access token"),
        ("nonsense".into(), "invalid access token"),
        (with(json!({"exp": 1_000_000_000})), "invalid access token"),
        (
            token::hs256("another secret, of a length that HS256 takes", &token::claims("alice", "teacher")),
            "invalid access token",
        ),
        (room.participant("bob"), "access token of another user"),
        (with(json!({"aud": "other.example.org"})), "access token of another user"),
        (with(json!({"classroom_ids": [other.id]})), "invalid access token"),
        (with(json!({"lesson_ids": [room.biology]})), "invalid access token"),
    ] {
        let ack = refresh(&mut alice, &token).await;
        assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!(message)), "{token}");
    }
    for payload in [json!({}), json!({"token": 7}), json!({"token": null}), json!([])] {
        let ack = alice.client.request("refresh", payload.clone()).await.unwrap();
        assert_eq!(ack["message"], "invalid payload", "{payload}");
    }
    // Alice's identity and rights are unchanged.
    alice.joins(&room.biology).await;
    let bob = backend.participant(room, "bob").await;
    alice.sees("entered", &bob.whom()).await;
    bob.client.close().await.unwrap();
    assert!(alice.client.next_event(SOON).await.is_ok());
}
