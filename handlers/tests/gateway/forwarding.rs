//! PROTOCOL 3: events of other services, who gets them, and in which form.

use crate::common::{Agent, Backend, Classroom, SOON, next_text, on_both_kinds};
use rollcall_loadtest::servers::shared;
use serde_json::{Value, json};

on_both_kinds!(
    a_body_with_an_id_is_forwarded_byte_for_byte,
    a_classrooms_event_goes_to_that_classroom_only,
    a_lessons_event_goes_to_the_agents_that_joined_it,
    events_back_to_back_arrive_whole_and_in_order,
);

/// Publishes through NATS to a real backend, as another service does.
async fn send(subject: &str, headers: &[(&'static str, &str)], body: &str) {
    crate::common::Stream::of(&shared::nats().url()).await.publish(subject, headers, body).await;
}

/// Returns two agents in one classroom. Neither has anything left to read.
async fn alice_and_bob(backend: &Backend) -> (&Classroom, Agent, Agent) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    backend.settled(room, [&mut alice, &mut bob]).await;
    (room, alice, bob)
}

async fn a_body_with_an_id_is_forwarded_byte_for_byte(backend: &Backend) {
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    let event = json!({"payload": {"z": 1, "a": [1.50, "ü"]}, "id": {"sequence_id": 7}});
    backend.publish(&room.subject("note"), &event);
    for agent in [&mut alice, &mut bob] {
        assert_eq!(agent.client.next_event(SOON).await.unwrap().body, event);
    }
}

async fn a_classrooms_event_goes_to_that_classroom_only(backend: &Backend) {
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    let other = backend.classroom();
    let mut eve = backend.participant(other, "eve").await;
    backend.settled(other, [&mut eve]).await;
    let event = json!({"for": "the first classroom"});
    backend.publish(&room.subject("note"), &event);
    for agent in [&mut alice, &mut bob] {
        assert_eq!(agent.client.next_event(SOON).await.unwrap().body, event);
    }
    backend.nothing_came(other, [&mut eve]).await;
}

async fn a_lessons_event_goes_to_the_agents_that_joined_it(backend: &Backend) {
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    alice.joins(&room.algebra).await;
    bob.joins(&room.biology).await;
    let event = json!({"id": {"entity_type": "board", "operation": "drawn", "sequence_id": 1}, "payload": {}});
    backend.publish(&format!("lesson.{}.board", room.algebra), &event);
    assert_eq!(alice.client.next_event(SOON).await.unwrap().body, event);
    backend.nothing_came(room, [&mut alice, &mut bob]).await;
}

async fn events_back_to_back_arrive_whole_and_in_order(backend: &Backend) {
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    let events: Vec<Value> = (0..100).map(|number| json!({"number": number})).collect();
    for event in &events {
        backend.publish(&room.subject("note"), event);
    }
    for agent in [&mut alice, &mut bob] {
        for event in &events {
            assert_eq!(agent.client.next_event(SOON).await.unwrap().body, *event);
        }
    }
}

#[tokio::test]
async fn an_event_through_nats_is_not_changed() {
    let backend = Backend::real();
    let (room, mut alice, _bob) = alice_and_bob(backend).await;
    // Spaces, the order of keys, numbers and escapes arrive unchanged, because the gateway does not parse and write the
    // body again.
    let odd = "{ \"b\" : 1.500e1,\t\"a\": \"\\u00fc\\/\", \"id\": {\"x\": 1 } }\n";
    for body in [odd, "{}", r#"{"payload":1}"#, r#"{"id":null}"#] {
        send(&room.subject("note"), &[], body).await;
        assert_eq!(next_text(&mut alice.client, SOON).await, body);
    }
}

#[tokio::test]
async fn a_sender_gets_no_echo() {
    let backend = Backend::real();
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    alice.joins(&room.algebra).await;
    bob.joins(&room.algebra).await;
    for subject in [room.subject("note"), format!("lesson.{}.board", room.algebra)] {
        send(&subject, &[("Sender-Agent-Id", &alice.id)], r#"{"from":"alice"}"#).await;
        let event = bob.client.next_event(SOON).await.unwrap();
        assert_eq!(event.body, json!({"from": "alice"}), "{subject}");
    }
    backend.nothing_came(room, [&mut alice, &mut bob]).await;
}

#[tokio::test]
async fn a_receiver_is_the_only_one() {
    let backend = Backend::real();
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    send(&room.subject("note"), &[("Receiver-Agent-Id", &bob.id)], r#"{"for":"bob"}"#).await;
    assert_eq!(bob.client.next_event(SOON).await.unwrap().body, json!({"for": "bob"}));
    // Both headers name the same agent: a message to itself.
    let to_itself = [("Receiver-Agent-Id", bob.id.as_str()), ("Sender-Agent-Id", &bob.id)];
    send(&room.subject("note"), &to_itself, r#"{"for":"itself"}"#).await;
    assert_eq!(bob.client.next_event(SOON).await.unwrap().body, json!({"for": "itself"}));
    let in_lower_case = [("receiver-agent-id", bob.id.as_str())];
    send(&room.subject("note"), &in_lower_case, r#"{"for":"bob"}"#).await;
    assert_eq!(bob.client.next_event(SOON).await.unwrap().body, json!({"for": "bob"}));
    backend.nothing_came(room, [&mut alice, &mut bob]).await;
}

#[tokio::test]
async fn an_internal_event_is_not_forwarded() {
    let backend = Backend::real();
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    for (name, value) in [("Is-Internal", "true"), ("is-internal", "true"), ("Is-Internal", "True")] {
        send(&room.subject("note"), &[(name, value)], r#"{"secret":1}"#).await;
    }
    send(&room.subject("note"), &[("Sender-Agent-Id", "a service")], r#"{"unreadable":1}"#).await;
    send(&room.subject("note"), &[], r#"{"type":"ack","ref":1,"status":"SUCCESS","data":{}}"#).await;
    backend.nothing_came(room, [&mut alice, &mut bob]).await;
    send(&room.subject("note"), &[("Is-Internal", "false")], r#"{"open":1}"#).await;
    assert_eq!(alice.client.next_event(SOON).await.unwrap().body, json!({"open": 1}));
}

#[tokio::test]
async fn an_object_without_id_is_wrapped_by_the_entity_headers() {
    let backend = Backend::real();
    let (room, mut alice, _bob) = alice_and_bob(backend).await;
    let entity =
        [("Entity-Event-Type", "note"), ("Entity-Event-Operation", "made"), ("Entity-Event-Sequence-Id", "42")];
    let body = r#"{"z": 1, "a": 2}"#;
    send(&room.subject("note"), &entity, body).await;
    let id = r#"{"entity_type":"note","operation":"made","sequence_id":42}"#;
    assert_eq!(next_text(&mut alice.client, SOON).await, format!(r#"{{"id":{id},"payload":{body}}}"#));

    // A body that has an id is not wrapped, nor is one that lacks one of the three headers.
    for (headers, body) in [(&entity[..], r#"{"id":{"own":1}}"#), (&entity[..2], r#"{"z": 2}"#)] {
        send(&room.subject("note"), headers, body).await;
        assert_eq!(next_text(&mut alice.client, SOON).await, body);
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_or_too_big_is_dropped_and_counted() {
    let backend = Backend::real();
    let (room, mut alice, mut bob) = alice_and_bob(backend).await;
    let dropped = || backend.gateway.metric("rollcall_dropped_total", &[]).unwrap();
    let before = dropped();
    let filled = |size: usize| format!(r#"{{"fill":"{}"}}"#, "x".repeat(size - r#"{"fill":""}"#.len()));
    let wrong = ["", "[]", "7", "null", "\"text\"", "{", "{} {}", "no json", &filled(128 * 1024 + 1)];
    for body in wrong {
        send(&room.subject("note"), &[], body).await;
    }
    backend.nothing_came(room, [&mut alice, &mut bob]).await;
    let counted = dropped() - before;
    assert!(counted >= wrong.len() as f64, "{counted} of {}", wrong.len());
    // A body of exactly the limit is forwarded.
    let most = filled(128 * 1024);
    send(&room.subject("note"), &[], &most).await;
    assert_eq!(next_text(&mut alice.client, SOON).await, most);
}

#[tokio::test]
async fn a_message_id_comes_through_once() {
    let backend = Backend::real();
    let (room, mut alice, _bob) = alice_and_bob(backend).await;
    let id = format!("note-{}", room.id);
    for _ in 0..3 {
        send(&room.subject("note"), &[("Nats-Msg-Id", &id)], r#"{"once":1}"#).await;
    }
    assert_eq!(alice.client.next_event(SOON).await.unwrap().body, json!({"once": 1}));
    backend.nothing_came(room, [&mut alice]).await;
}

#[tokio::test]
async fn the_stream_is_as_the_contract_says() {
    let stream = Backend::real().stream().await.expect("a real backend has one");
    let config = stream.config().await;
    assert_eq!(config.subjects, ["classroom.>", "lesson.>"]);
    assert_eq!(config.storage, async_nats::jetstream::stream::StorageType::File);
    assert_eq!(config.retention, async_nats::jetstream::stream::RetentionPolicy::Limits);
    assert_eq!((config.max_age.as_secs(), config.duplicate_window.as_secs()), (3600, 120));
    let republish = config.republish.expect("republishing");
    assert_eq!((republish.source.as_str(), republish.destination.as_str()), (">", "live.>"));
}
