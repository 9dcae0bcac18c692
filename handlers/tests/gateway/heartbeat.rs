//! PROTOCOL 2, Ping: pings that a page sees, and the event `ping`.

use crate::common::{Backend, SOON, on_both_kinds, session_error};
use rollcall_loadtest::GatewayOptions;
use serde_json::{Value, json};

on_both_kinds!(
    a_ping_is_acked_at_once,
    a_heartbeat_is_a_text_that_is_answered,
    a_page_that_does_not_answer_is_timed_out,
);

async fn a_ping_is_acked_at_once(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let ack = alice.client.request("ping", json!({})).await.unwrap();
    assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &json!({})));
    // On a gateway without the heartbeat `pong` is an unknown event.
    let ack = alice.client.request("pong", json!({})).await.unwrap();
    assert_eq!(ack["message"], "unknown event");
}

fn fast(backend: &Backend) -> Backend {
    backend.another(|options: &GatewayOptions| {
        options.clone().env("ROLLCALL_PING_INTERVAL", "2s").env("ROLLCALL_PONG_TIMEOUT", "1900ms")
    })
}

async fn a_heartbeat_is_a_text_that_is_answered(backend: &Backend) {
    let own = fast(backend);
    let room = own.classroom();
    let mut request = room.connect_request(&room.participant("alice"), "web");
    request["heartbeat"] = json!(true);
    for resume in [Value::Null, json!({})] {
        request["resume"] = resume;
        let mut client = own.client().await;
        let start = client.connect_request_with(request.clone()).await.unwrap()["offset"].as_u64();
        let mut pings: Vec<Value> = Vec::new();
        while pings.len() < 3 {
            let message = client.next_message(SOON).await.unwrap();
            if message["type"] == "ping" {
                client.send(&json!({"type": "pong"})).await.unwrap();
                pings.push(message);
            }
        }
        // Pongs are not acknowledged, and delay no request.
        assert_eq!(client.request("ping", json!({})).await.unwrap()["status"], "SUCCESS");
        let offsets: Vec<_> = pings.iter().filter_map(|ping| ping["offset"].as_u64()).collect();
        assert_eq!(offsets.len(), if start.is_some() { pings.len() } else { 0 });
        assert!(offsets.is_sorted() && offsets.iter().all(|offset| Some(*offset) >= start));
    }
}

async fn a_page_that_does_not_answer_is_timed_out(backend: &Backend) {
    let own = fast(backend);
    let room = own.classroom();
    let mut request = room.connect_request(&room.participant("alice"), "web");
    request["heartbeat"] = json!(true);
    let mut alice = own.client().await;
    alice.connect_request_with(request).await.unwrap();
    // The client reads, so it would answer pings of the WebSocket.
    session_error(&alice.expect_close(SOON).await.unwrap(), "pong_timed_out", 422, 3012);
    let history = format!("select reason from agent_session_history where classroom_id = '{}'", room.id);
    own.wait_for_rows(&history, &["timed_out"]).await;
}
