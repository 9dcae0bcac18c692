//! Tests of `POST publish`: the events that are published, and every refusal.
use rollcall_schema::RoomId;
use serde_json::json;

use super::*;
use crate::http_client::fixture::soon;

const ALICE: &str = "web.alice.example.org";
const BOB: &str = "web.bob.example.org";

#[tokio::test]
async fn what_is_published_reaches_the_room_as_it_was_written() {
    let mut bench = Bench::new().await;
    let room = RoomId::Classroom(ClassroomId::parse(ROOM).unwrap());
    bench.bus.subscribe(&room).await.unwrap();
    let body = format!(r#"{{"subject":"classroom.{ROOM}.note","body":{{"z": 1.0,  "a":"é"}}}}"#);
    let request = Request::post("/api/v1/publish")
        .header("Sender-Agent-Id", ALICE)
        .header("Receiver-Agent-Id", BOB)
        .header("Is-Internal", "true")
        .header("Entity-Event-Type", "note")
        .header("Entity-Event-Operation", "added")
        .header("Entity-Event-Sequence-Id", "7")
        .body(Full::new(body.into()))
        .unwrap();
    let (status, body) = bench.ask(request).await;
    assert_eq!((status, body), (StatusCode::ACCEPTED, json!({"offset": 1})));
    let Some(BusEvent::Event(event)) = soon(bench.feed.recv()).await else { panic!("not an event") };
    assert_eq!(event.room, room);
    assert_eq!(event.body, r#"{"z": 1.0,  "a":"é"}"#);
    assert_eq!((event.sender, event.receiver), (AgentId::parse(ALICE).ok(), AgentId::parse(BOB).ok()));
    assert!(event.internal);
    assert_eq!(event.entity, Some(("note".into(), "added".into(), 7)));
}

#[tokio::test]
async fn what_is_no_event_is_not_published() {
    let bench = Bench::new().await;
    let subjects = ["x", "classroom.*.note", "classroom.x.note", "lesson.a.b.c", "lesson.a.>", "live.lesson.a.b", ""];
    for subject in subjects {
        let (status, _) = bench.post("/api/v1/publish", json!({"subject": subject, "body": {}}).to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{subject}");
    }
    for body in [json!([]), json!("{}"), json!(7), json!(null)] {
        let (status, _) =
            bench.post("/api/v1/publish", json!({"subject": "lesson.a.note", "body": body}).to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    for body in ["", "{", r#"{"subject":"lesson.a.note"}"#, r#"{"body":{}}"#] {
        assert_eq!(bench.post("/api/v1/publish", body).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    let faulty = [
        ("Sender-Agent-Id", "alice"),
        ("Receiver-Agent-Id", "a.b"),
        ("Is-Internal", "perhaps"),
        ("Entity-Event-Type", "a b"),
        ("Entity-Event-Sequence-Id", "one"),
    ];
    for (name, value) in faulty {
        let body = json!({"subject": "lesson.a.note", "body": {}}).to_string();
        let request = Request::post("/api/v1/publish").header(name, value).body(Full::new(body.into())).unwrap();
        let (status, body) = bench.ask(request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body["detail"].as_str().unwrap().contains(name), "{body}");
    }
    assert_eq!(bench.bus.position().offset.0, 0, "nothing was stored");
}

#[tokio::test]
async fn a_header_that_is_given_twice_is_refused() {
    let bench = Bench::new().await;
    let refused = async |event: String, headers: &[(&str, &str)]| {
        let mut request = Request::post("/api/v1/publish");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (status, body) = bench.ask(request.body(Full::new(event.clone().into())).unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{event} {headers:?}");
        assert!(body["detail"].as_str().unwrap().contains("Is-Internal is given twice"), "{body}");
    };
    let event = |headers: &str| format!(r#"{{"subject":"lesson.a.note","body":{{}},"headers":{headers}}}"#);
    refused(event("{}"), &[("Is-Internal", "false"), ("is-internal", "true")]).await;
    refused(event(r#"{"Is-Internal":"true","IS-INTERNAL":"false"}"#), &[]).await;
    refused(event(r#"{"Is-Internal":"true","Is-Internal":"false"}"#), &[]).await;
    assert_eq!(bench.bus.position().offset.0, 0, "nothing was stored");
    // A header beside the event overrides the header of the request.
    let request = Request::post("/api/v1/publish").header("Is-Internal", "false");
    let request = request.body(Full::new(event(r#"{"is-internal":"true"}"#).into())).unwrap();
    assert_eq!(bench.ask(request).await.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn presence_cannot_be_published() {
    let bench = Bench::new().await;
    let refused = async |subject: &str, entity: &'static str| {
        let body = json!({"subject": subject, "body": {"label": "left"}}).to_string();
        let request = Request::post("/api/v1/publish").header("Entity-Event-Type", entity);
        let (status, body) = bench.ask(request.body(Full::new(body.into())).unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{subject}, {entity}");
        assert!(body["detail"].as_str().unwrap().contains("entity type agent"), "{body}");
    };
    refused(&format!("classroom.{ROOM}.agent"), "note").await;
    refused("lesson.a.agent", "note").await;
    refused(&format!("classroom.{ROOM}.note"), "agent").await;
    assert_eq!(bench.bus.position().offset.0, 0, "nothing was stored");
    // A client uses the event's own `id`, whatever the event's subject is.
    for body in [
        r#"{"id":{"entity_type":"agent","operation":"left","sequence_id":1},"payload":{}}"#,
        r#"{"\u0069d":{"entity_type":"\u0061gent"},"id":1}"#,
    ] {
        let event = format!(r#"{{"subject":"classroom.{ROOM}.note","body":{body}}}"#);
        assert_eq!(bench.post("/api/v1/publish", event.clone()).await.0, StatusCode::BAD_REQUEST, "{body}");
        let (_, several) = bench.post("/api/v1/publish", format!("[{event}]")).await;
        assert_eq!(several["results"][0]["status"], 400, "{body}");
    }
    assert_eq!(bench.bus.position().offset.0, 0, "nothing was stored");
    let allowed = json!({"subject": "lesson.agent.agents", "body": {}}).to_string();
    assert_eq!(bench.post("/api/v1/publish", allowed).await.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_event_is_as_large_as_it_may_be_and_no_larger() {
    let bench = Bench::new().await;
    let sized = |bytes: usize| format!(r#"{{"subject":"lesson.a.note","body":{{"x":"{}"}}}}"#, "x".repeat(bytes - 8));
    assert_eq!(bench.post("/api/v1/publish", sized(LARGEST)).await.0, StatusCode::ACCEPTED);
    assert_eq!(bench.post("/api/v1/publish", sized(LARGEST + 1)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(bench.post("/api/v1/publish", sized(LARGEST * 9)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn several_events_have_an_outcome_each() {
    let mut bench = Bench::new().await;
    let room = RoomId::Classroom(ClassroomId::parse(ROOM).unwrap());
    bench.bus.subscribe(&room).await.unwrap();
    let subject = format!("classroom.{ROOM}.note");
    let events = json!([
        {"subject": subject, "body": {"n": 1}, "id": "first", "headers": {"receiver-agent-id": BOB}},
        {"subject": subject, "body": []},
        {"subject": "lesson.nowhere.note", "body": {}},
        {"subject": subject, "body": {"n": 1}, "id": "first"},
        7,
        {"subject": "lesson.a.note", "body": {"n": 2}},
    ]);
    let (status, answer) = bench.post("/api/v1/publish", events.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 400, 404, 202, 400, 202]);
    assert_eq!((&results[0]["offset"], &results[3]["offset"]), (&json!(1), &json!(1)), "one id, one event");
    assert!(results[2]["detail"].as_str().unwrap().contains("no lesson nowhere"), "{answer}");
    let Some(BusEvent::Event(event)) = soon(bench.feed.recv()).await else { panic!("not an event") };
    assert_eq!((event.body.as_ref(), event.receiver), (&br#"{"n":1}"#[..], AgentId::parse(BOB).ok()));
    let many = vec![json!({"subject": subject, "body": {}}); 1001];
    let (status, body) = bench.post("/api/v1/publish", json!(many).to_string()).await;
    assert_eq!((status, bench.bus.position().offset.0), (StatusCode::BAD_REQUEST, 2), "{body}");
    let none = bench.post("/api/v1/publish", " []").await;
    assert_eq!(none, (StatusCode::OK, json!({"results": []})));
}

#[tokio::test]
async fn no_event_takes_the_message_id_of_a_presence_event() {
    let bench = Bench::new().await;
    for id in ["agent.entered:x:1:2", "agent.", "", "a b", "é", &"x".repeat(129)] {
        let event = json!({"subject": "lesson.a.note", "body": {}, "id": id}).to_string();
        assert_eq!(bench.post("/api/v1/publish", event).await.0, StatusCode::BAD_REQUEST, "{id}");
    }
    assert_eq!(bench.bus.position().offset.0, 0, "nothing was stored");
}
