//! PROTOCOL 2, acks: which requests are answered, in which form, and that an error does not end the connection.

use crate::common::{Agent, Backend, SOON, next_text, on_both_kinds};
use serde_json::json;

on_both_kinds!(
    a_success_has_the_seeds_object_in_the_envelope,
    a_faulty_ref_comes_back_as_null_and_its_request_is_invalid,
    a_success_without_ref_is_not_acknowledged,
    an_error_without_ref_is_acknowledged,
    an_unknown_event_is_answered_with_an_error,
    an_invalid_payload_is_answered_with_an_error,
    unknown_fields_are_ignored,
    one_event_at_a_time_in_order,
);

async fn alice(backend: &Backend) -> (&crate::common::Classroom, Agent) {
    let room = backend.classroom();
    (room, backend.participant(room, "alice").await)
}

/// Returns the answer to a text, byte for byte.
async fn answer(agent: &mut Agent, text: &str) -> String {
    agent.client.send_text(text).await.unwrap();
    next_text(&mut agent.client, SOON).await
}

async fn a_success_has_the_seeds_object_in_the_envelope(backend: &Backend) {
    let (room, mut alice) = alice(backend).await;
    for reference in ["1", "0", "-7", "9223372036854775807", r#""1""#, r#""b2f6c1c0-8a1e""#] {
        let request =
            format!(r#"{{"type":"join_lesson","ref":{reference},"payload":{{"lesson_id":"{}"}}}}"#, room.algebra);
        // The envelope also says what was joined (PROTOCOL 2), beside the seed's object.
        let joined = format!(r#""lesson":{{"lesson_id":"{}","seat":null,"seats":3}}"#, room.algebra);
        let ack = format!(r#"{{"type":"ack","ref":{reference},"status":"SUCCESS","data":{{}},{joined}}}"#);
        assert_eq!(answer(&mut alice, &request).await, ack);
    }
}

async fn a_faulty_ref_comes_back_as_null_and_its_request_is_invalid(backend: &Backend) {
    let (room, mut alice) = alice(backend).await;
    let ack = concat!(
        r#"{"type":"ack","ref":null,"status":"ERROR","message":"invalid payload","#,
        r#""detail":"ref: an integer of 64 bits, or a text of at most 64 bytes"}"#
    );
    let long = format!(r#""{}""#, "x".repeat(65));
    for faulty in ["1.5", "1e3", "true", "{}", "[1]", "9223372036854775808", &long] {
        for event in ["join_lesson", "nonsense"] {
            let payload = json!({"lesson_id": room.algebra});
            let request = format!(r#"{{"type":"{event}","ref":{faulty},"payload":{payload}}}"#);
            assert_eq!(answer(&mut alice, &request).await, ack, "{faulty}");
        }
    }
    let lesson = format!("select lesson_id from agent_session where id = {}", alice.session);
    assert_eq!(backend.value(&lesson).await, "");
    // A `ref` of `null` counts as no `ref`.
    let unknown = answer(&mut alice, r#"{"type":"nonsense","ref":null}"#).await;
    assert!(unknown.starts_with(r#"{"type":"ack","ref":null,"status":"ERROR","message":"unknown event""#), "{unknown}");
}

async fn a_success_without_ref_is_not_acknowledged(backend: &Backend) {
    let (room, mut alice) = alice(backend).await;
    alice.client.send(&json!({"type": "join_lesson", "payload": {"lesson_id": room.algebra}})).await.unwrap();
    // Requests run in order. So the next request's answer is the first that comes, and the join was done before it.
    let next = answer(&mut alice, r#"{"type":"nonsense","ref":2}"#).await;
    assert!(next.starts_with(r#"{"type":"ack","ref":2,"status":"ERROR","message":"unknown event""#), "{next}");
    let lesson = format!("select lesson_id from agent_session where id = {}", alice.session);
    assert_eq!(backend.value(&lesson).await, room.algebra);
}

async fn an_error_without_ref_is_acknowledged(backend: &Backend) {
    let (_, mut alice) = alice(backend).await;
    let ack = answer(&mut alice, r#"{"type":"join_lesson","payload":{"lesson_id":"none"}}"#).await;
    assert_eq!(ack, r#"{"type":"ack","ref":null,"status":"ERROR","message":"lesson not found"}"#);
}

async fn an_unknown_event_is_answered_with_an_error(backend: &Backend) {
    let (room, mut alice) = alice(backend).await;
    for event in ["leave", "Join_Lesson", "", "connect", "disconnect", "ack"] {
        let ack = alice.client.request(event, json!({})).await.unwrap();
        assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("unknown event")), "{event}: {ack}");
    }
    let again = alice.client.request("connect_request", json!({})).await.unwrap();
    assert_eq!(again["message"], "already connected", "{again}");
    backend.nothing_came(room, [&mut alice]).await;
}

async fn an_invalid_payload_is_answered_with_an_error(backend: &Backend) {
    let (room, mut alice) = alice(backend).await;
    let start = r#"{"type":"ack","ref":1,"status":"ERROR","message":"invalid payload""#;
    let rule = r#","detail":"lesson_id: [A-Za-z0-9_-]{1,64}"}"#;
    let long = format!(r#"{{"lesson_id":"{}"}}"#, "x".repeat(65));
    for payload in [
        "[]",
        "7",
        r#""algebra""#,
        r#"{"lesson_id":7}"#,
        r#"{"lesson_id":""}"#,
        r#"{"lesson_id":"*"}"#,
        r#"{"lesson_id":"a.b"}"#,
        r#"{"lesson_id":"a b"}"#,
        r#"{"lesson_id":"a\u0000"}"#,
        r#"{"lesson_id":"' OR 1=1"}"#,
        r#"{"lesson_id":["algebra"]}"#,
        r#"{"access_token":7}"#,
        &long,
    ] {
        let request = format!(r#"{{"type":"join_lesson","ref":1,"payload":{payload}}}"#);
        let detail = if payload.starts_with(r#"{"lesson_id""#) { rule } else { "}" };
        assert_eq!(answer(&mut alice, &request).await, format!("{start}{detail}"), "{payload}");
    }
    // A text that is not a request has no `ref` that could be read.
    let unreadable = r#"{"type":"ack","ref":null,"status":"ERROR","message":"invalid payload"}"#;
    for text in ["{", "", "null", "[]", "7", "{}"] {
        assert_eq!(answer(&mut alice, text).await, unreadable, "{text}");
    }
    // The connection stays open, and its next request succeeds.
    alice.joins(&room.algebra).await;
}

async fn unknown_fields_are_ignored(backend: &Backend) {
    let room = backend.classroom();
    let mut client = backend.client().await;
    let mut payload = room.connect_request(&room.participant("alice"), "web");
    payload["colour"] = json!({"deep": [1, 2, 3]});
    let request = json!({"type": "connect_request", "payload": payload, "ref": 1, "colour": "blue"});
    client.send(&request).await.unwrap();
    let success = client.next_message(SOON).await.unwrap();
    assert_eq!(success["type"], "connect_success", "{success}");
    let payload = json!({"lesson_id": room.algebra, "colour": null});
    let ack = client.request("join_lesson", payload).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS", "{ack}");
}

async fn one_event_at_a_time_in_order(backend: &Backend) {
    let (room, mut alice) = alice(backend).await;
    // All requests are sent before the first one is answered.
    for reference in 0..20 {
        let lesson = if reference % 2 == 0 { &room.algebra } else { &room.biology };
        let request = json!({"type": "join_lesson", "ref": reference, "payload": {"lesson_id": lesson}});
        alice.client.send(&request).await.unwrap();
    }
    for reference in 0..20 {
        let ack = alice.client.next_message(SOON).await.unwrap();
        assert_eq!((&ack["ref"], &ack["status"]), (&json!(reference), &json!("SUCCESS")), "{ack}");
    }
    let lesson = format!("select lesson_id from agent_session where id = {}", alice.session);
    assert_eq!(backend.value(&lesson).await, room.biology);
}
