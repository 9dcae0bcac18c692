//! PROTOCOL 9, info and state: what agents show of themselves to the others.

use std::time::Duration;

use crate::common::{Agent, Backend, Classroom, SOON, Stored, agent_event, on_both_kinds, refused, session_error};
use rollcall_loadtest::GatewayOptions;
use serde_json::{Value, json};

on_both_kinds!(
    a_state_is_shown_to_the_others,
    a_faulty_state_is_refused,
    a_guest_has_no_state,
    info_is_in_the_event_and_in_the_list,
    info_that_is_no_small_object_is_unauthenticated,
    a_takeover_keeps_the_state_and_tells_another_role,
    the_grace_keeps_the_state,
    who_resumes_gets_what_was_set_meanwhile,
);

impl Agent {
    async fn sets(&mut self, state: Value) {
        let ack = self.client.request("set_state", json!({"state": state})).await.unwrap();
        assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &json!({})), "{ack}");
    }

    /// Returns the payload of the next event, which is an agent.updated of this session.
    async fn sees_update(&mut self, other: &Agent) -> Value {
        let event = self.client.next_event(SOON).await.unwrap();
        let mut body = event.body.clone();
        for more in ["state", "state_n", "role", "info"] {
            body["payload"].as_object_mut().unwrap().remove(more);
        }
        assert_eq!(body, agent_event("updated", other.session, &other.id), "{:?}", event.body);
        event.body["payload"].clone()
    }
}

fn listed(backend: &Backend, room: &Classroom, agent: &Agent) -> Value {
    let (status, body) = backend.gateway.get(&format!("/api/v1/classrooms/{}/agents", room.id)).unwrap();
    assert_eq!(status, 200, "{body}");
    let all: Vec<Value> = serde_json::from_str(&body).unwrap();
    all.into_iter().find(|listed| listed["id"] == agent.session).expect("listed")
}

async fn a_state_is_shown_to_the_others(backend: &Backend) {
    let room = backend.classroom();
    let mut bob = backend.participant(room, "bob").await;
    backend.settled(room, [&mut bob]).await;
    let mut alice = backend.participant(room, "alice").await;
    bob.sees("entered", &alice.whom()).await;
    let mut last = 0;
    for state in [json!({"hand": true, "text": "\u{0}é"}), json!({}), Value::Null] {
        alice.sets(state.clone()).await;
        let payload = bob.sees_update(&alice).await;
        let version = payload["state_n"].as_i64().unwrap();
        assert_eq!((&payload["state"], payload.get("role"), payload.get("info")), (&state, None, None));
        assert!(version > last, "{payload}");
        last = version;
        let listed = listed(backend, room, &alice);
        assert_eq!((listed.get("state").unwrap_or(&Value::Null), &listed["state_n"]), (&state, &json!(version)));
    }
    // The agent's own connection gets no event, and its agent.left comes last.
    backend.nothing_came(room, [&mut alice, &mut bob]).await;
    alice.sets(json!({"last": 1})).await;
    let session = alice.session;
    let gone = alice.leaves().await;
    let seen = [bob.client.next_event(SOON).await.unwrap(), bob.client.next_event(SOON).await.unwrap()];
    assert_eq!(seen.each_ref().map(|event| event.label().unwrap()), ["updated", "left"]);
    assert_eq!(seen[1].body, agent_event("left", session, &gone.id));
    if let Some(stream) = backend.stream().await {
        let stored = stream.messages(&room.subject("agent")).await;
        let is_update = |message: &&Stored| message.header("Entity-Event-Operation") == "updated";
        let updated: Vec<_> = stored.iter().filter(is_update).collect();
        assert_eq!(updated.len(), 4);
        let start = format!("agent.updated:{}:{session}:", backend.installation().await);
        assert!(updated.iter().all(|message| message.id().starts_with(&start)));
    }
}

async fn a_faulty_state_is_refused(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.sets(json!({"a": "x".repeat(1024 - 8)})).await;
    for state in [json!({"a": "x".repeat(1024 - 7)}), json!([]), json!("{}"), json!(1)] {
        let ack = alice.client.request("set_state", json!({"state": state})).await.unwrap();
        let said = [&ack["status"], &ack["message"], &ack["detail"]];
        let rule = "state: a JSON object of at most 1024 bytes";
        assert_eq!(said, [&json!("ERROR"), &json!("invalid payload"), &json!(rule)]);
    }
    let ack = alice.client.request("set_state", json!({})).await.unwrap();
    assert_eq!((&ack["message"], &ack["detail"]), (&json!("invalid payload"), &json!("state: is required")));
    assert_eq!(listed(backend, room, &alice)["state"], json!({"a": "x".repeat(1024 - 8)}));
}

async fn a_guest_has_no_state(backend: &Backend) {
    let own = backend.another(|options: &GatewayOptions| options.clone().env("ROLLCALL_GUESTS", "true"));
    let room = own.classroom();
    let mut guest = own.client().await;
    guest.connect_request_with(json!({"classroom_id": room.id, "agent_label": "web"})).await.unwrap();
    for (event, payload) in [("set_state", json!({"state": {}})), ("roster", json!({}))] {
        let ack = guest.request(event, payload).await.unwrap();
        assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("not in a classroom")), "{event}");
    }
}

async fn info_is_in_the_event_and_in_the_list(backend: &Backend) {
    let room = backend.classroom();
    let mut bob = backend.participant(room, "bob").await;
    backend.settled(room, [&mut bob]).await;
    let info = json!({"name": "Alice", "avatar": {"n": 1.5}});
    let alice = backend.enters(room, &room.token_with("alice", &json!({"info": info}))).await;
    let mut entered = agent_event("entered", alice.session, &alice.id);
    entered["payload"]["info"] = info.clone();
    assert_eq!(bob.client.next_event(SOON).await.unwrap().body, entered);
    assert_eq!(listed(backend, room, &alice)["info"], info);
    assert_eq!(listed(backend, room, &bob).get("info"), None);
}

async fn info_that_is_no_small_object_is_unauthenticated(backend: &Backend) {
    let room = backend.classroom();
    for info in [json!({"a": "x".repeat(1024 - 7)}), json!([]), json!("x"), Value::Null] {
        let token = room.token_with("alice", &json!({"info": info}));
        let request = json!({"type": "connect_request", "payload": room.connect_request(&token, "web")});
        let closing = refused(backend, &request.to_string()).await;
        session_error(&closing, "unauthenticated", 401, 3500);
        assert_eq!(closing.error.unwrap()["payload"]["detail"], "info: a JSON object of at most 1024 bytes");
    }
    assert_eq!(backend.live(room).await, [""; 0]);
}

async fn a_takeover_keeps_the_state_and_tells_another_role(backend: &Backend) {
    let room = backend.classroom();
    let mut bob = backend.participant(room, "bob").await;
    let mut alice = backend.participant(room, "alice").await;
    alice.sets(json!({"hand": true})).await;
    backend.settled(room, [&mut bob]).await;
    let mut again = backend.participant(room, "alice").await;
    assert_eq!(again.session, alice.session);
    assert_eq!(listed(backend, room, &again)["state"], json!({"hand": true}));
    backend.nothing_came(room, [&mut bob, &mut again]).await;

    let token = room.token_with("alice", &json!({"role": "teacher", "info": {"name": "Alice"}}));
    let teacher = backend.enters(room, &token).await;
    let payload = bob.sees_update(&teacher).await;
    assert_eq!(payload["state"], json!({"hand": true}));
    assert_eq!((&payload["role"], &payload["info"]), (&json!("teacher"), &json!({"name": "Alice"})));
    let listed = listed(backend, room, &teacher);
    for field in ["state", "state_n", "role", "info"] {
        assert_eq!(listed[field], payload[field], "{field}");
    }
    // A token without info removes the info.
    let participant = backend.participant(room, "alice").await;
    let payload = bob.sees_update(&participant).await;
    assert_eq!((&payload["role"], payload.get("info")), (&json!("participant"), Some(&Value::Null)));
}

async fn the_grace_keeps_the_state(backend: &Backend) {
    let own = backend.another(|options: &GatewayOptions| options.clone().env("ROLLCALL_LEAVE_GRACE", "60s"));
    let room = own.classroom();
    let mut bob = own.participant(room, "bob").await;
    let mut alice = own.participant(room, "alice").await;
    alice.sets(json!({"hand": true})).await;
    own.settled(room, [&mut bob]).await;
    let session = alice.session;
    drop(alice);
    let mut again = own.participant(room, "alice").await;
    assert_eq!(again.session, session);
    assert_eq!(listed(&own, room, &again)["state"], json!({"hand": true}));
    own.nothing_came(room, [&mut bob, &mut again]).await;
}

async fn who_resumes_gets_what_was_set_meanwhile(backend: &Backend) {
    let room = backend.classroom();
    let mut request = room.connect_request(&room.participant("bob"), "web");
    request["resume"] = json!({});
    let mut bob = backend.client().await;
    let success = bob.connect_request_with(request.clone()).await.unwrap();
    let mut alice = backend.participant(room, "alice").await;
    while bob.next_event(SOON).await.unwrap().sequence_id() != Some(alice.session) {}
    drop(bob);
    for n in 0..3 {
        alice.sets(json!({"n": n})).await;
    }
    request["resume"] = json!({"epoch": success["epoch"], "offset": success["offset"]});
    let mut bob = backend.client().await;
    let resumed = bob.connect_request_with(request).await.unwrap();
    assert_eq!(resumed["recovered"], true);
    let mut seen = Vec::new();
    while seen.last() != Some(&json!({"n": 2})) {
        let event = bob.next_event(Duration::from_secs(10)).await.unwrap();
        if event.sequence_id() == Some(alice.session) && event.label() == Some("updated") {
            seen.push(event.body["payload"]["state"].clone());
        }
    }
    let numbers: Vec<_> = seen.iter().map(|state| state["n"].as_i64().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}
