//! PROTOCOL 2, join_lesson: which lesson is joined, which users may join it, and that a failed join changes nothing.

use crate::common::{Agent, Backend, Classroom, SOON, on_both_kinds, student_hash};
use rollcall_loadtest::{Client, token};
use serde_json::{Value, json};

on_both_kinds!(
    an_unknown_lesson_is_not_found,
    a_lesson_of_another_classroom_is_not_found,
    a_lesson_outside_of_the_claim_is_not_found,
    a_hub_cannot_join,
    no_lesson_anywhere_is_an_error,
    the_payload_counts_before_the_url_and_the_url_before_the_claim,
    another_lesson_leaves_the_one_before,
    joining_the_same_lesson_again_changes_nothing,
    an_access_token_must_hold,
    an_access_token_must_be_the_agents_own,
    an_access_token_counts_for_this_join,
    a_join_that_fails_leaves_everything_as_it_was,
);

const NOT_FOUND: &str = "lesson not found";

/// Returns the lesson and the seat in the session's row.
async fn saved(backend: &Backend, agent: &Agent) -> String {
    backend.value(&format!("select lesson_id, seat from agent_session where id = {}", agent.session)).await
}

async fn an_unknown_lesson_is_not_found(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.is_refused(json!({"lesson_id": "no-such-lesson"}), NOT_FOUND).await;
    assert_eq!(saved(backend, &alice).await, "|");
}

async fn a_lesson_of_another_classroom_is_not_found(backend: &Backend) {
    let (room, other) = (backend.classroom(), backend.classroom());
    let mut alice = backend.participant(room, "alice").await;
    alice.is_refused(json!({"lesson_id": other.algebra}), NOT_FOUND).await;
    let mut tess = backend.teacher(room, "tess").await;
    tess.is_refused(json!({"lesson_id": other.algebra}), NOT_FOUND).await;
    if let Some(mut keys) = backend.keys().await {
        let left: Vec<String> = keys.ask(&["KEYS", &format!("*{}*", other.algebra)]).await;
        assert_eq!(left, [""; 0], "no key of a lesson that was not entered");
    }
}

async fn a_lesson_outside_of_the_claim_is_not_found(backend: &Backend) {
    let room = backend.classroom();
    let token = room.token_with("alice", &json!({"lesson_ids": [room.algebra]}));
    let mut alice = backend.enters(room, &token).await;
    alice.is_refused(json!({"lesson_id": room.biology}), NOT_FOUND).await;
    alice.joins(&room.algebra).await;
    let none = room.token_with("bob", &json!({"lesson_ids": []}));
    let mut bob = backend.enters(room, &none).await;
    bob.is_refused(json!({"lesson_id": room.algebra}), NOT_FOUND).await;
}

async fn a_hub_cannot_join(backend: &Backend) {
    let room = backend.classroom();
    let mut hub = backend.enters(room, &room.token_with("hub", &json!({"role": "hub"}))).await;
    hub.is_refused(json!({"lesson_id": room.algebra}), "hub clients cannot join a lesson").await;
    assert_eq!(saved(backend, &hub).await, "|");
}

async fn no_lesson_anywhere_is_an_error(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.is_refused(json!({}), "lesson_id is required").await;
    // The seed's data is None, so the request has no payload.
    alice.client.send(&json!({"type": "join_lesson", "ref": 9})).await.unwrap();
    let ack = alice.client.next_message(SOON).await.unwrap();
    assert_eq!(ack, json!({"type": "ack", "ref": 9, "status": "ERROR", "message": "lesson_id is required"}));
}

async fn the_payload_counts_before_the_url_and_the_url_before_the_claim(backend: &Backend) {
    let room = backend.classroom();
    let claimed = room.token_with("alice", &json!({"lesson_id": room.biology}));
    let plain = room.participant("alice");
    let url = format!("/ws?x=1&lesson_id={}", room.algebra);
    let cases = [
        ("/ws", &claimed, json!({}), &room.biology),
        (url.as_str(), &plain, json!({}), &room.algebra),
        (url.as_str(), &claimed, json!({}), &room.algebra),
        (url.as_str(), &claimed, json!({"lesson_id": room.biology}), &room.biology),
        (url.as_str(), &claimed, json!({"lesson_id": null}), &room.algebra),
    ];
    for (path, token, payload, lesson) in cases {
        let mut client = Client::connect_with(backend.gateway.address(), path, &[]).await.unwrap();
        let success = client.connect_request(token, &room.id, "web").await.unwrap();
        let mut alice = Agent::of(client, &success);
        let ack = alice.client.request("join_lesson", payload.clone()).await.unwrap();
        assert_eq!(ack["status"], "SUCCESS", "{path} {payload}: {ack}");
        assert_eq!(saved(backend, &alice).await, format!("{lesson}|"), "{path} {payload}");
        alice.leaves().await;
    }
}

/// Returns whether an event of this lesson reaches the agent before a fence of the classroom.
async fn hears(backend: &Backend, room: &Classroom, agent: &mut Agent, lesson: &str) -> bool {
    let event = json!({"of": lesson});
    backend.publish(&format!("lesson.{lesson}.board"), &event);
    let fence = backend.fence(room);
    let first = agent.client.next_event(SOON).await.unwrap().body;
    if fence.is(&first) {
        return false;
    }
    assert_eq!(first, event);
    fence.is_next_for(agent).await;
    true
}

async fn another_lesson_leaves_the_one_before(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "seated").await;
    alice.joins(&room.algebra).await;
    assert!(hears(backend, room, &mut alice, &room.algebra).await);
    alice.joins(&room.biology).await;
    assert!(!hears(backend, room, &mut alice, &room.algebra).await);
    assert!(hears(backend, room, &mut alice, &room.biology).await);
    assert_eq!(saved(backend, &alice).await, format!("{}|{}", room.biology, Classroom::SEAT));
    if let Some(mut keys) = backend.keys().await {
        let user = room.user("seated");
        let before = student_hash(&room.algebra);
        assert_eq!(keys.field(&before, &user).await, None, "its field is gone");
        let now = student_hash(&room.biology);
        assert_eq!(keys.field(&now, &user).await, Some(alice.sid));
    }
}

async fn joining_the_same_lesson_again_changes_nothing(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    alice.joins(&room.algebra).await;
    assert!(hears(backend, room, &mut alice, &room.algebra).await, "once, not twice");
    if let Some(mut keys) = backend.keys().await {
        let students = keys.hash(&student_hash(&room.algebra)).await;
        assert_eq!(students, crate::common::hash([(room.user("alice").as_str(), alice.sid.as_str())]));
    }
}

async fn an_access_token_must_hold(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let expired = room.token_with("alice", &json!({"exp": 1_000_000_000}));
    let forged = token::hs256("another secret, of a length that HS256 takes", &token::claims("alice", "teacher"));
    for access_token in ["", "nonsense", &expired, &forged] {
        let payload = json!({"lesson_id": room.algebra, "access_token": access_token});
        alice.is_refused(payload, "invalid access token").await;
    }
    assert_eq!(saved(backend, &alice).await, "|");
}

async fn an_access_token_must_be_the_agents_own(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let payload = json!({"lesson_id": room.algebra, "access_token": room.participant("bob")});
    alice.is_refused(payload, "access token of another user").await;
    assert_eq!(saved(backend, &alice).await, "|");
}

async fn an_access_token_counts_for_this_join(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    // The claims of the access token count: the lessons that it admits, and the lesson that it names.
    let narrow = room.token_with("alice", &json!({"lesson_ids": [room.biology], "lesson_id": room.biology}));
    alice.is_refused(json!({"lesson_id": room.algebra, "access_token": narrow}), NOT_FOUND).await;
    let ack = alice.client.request("join_lesson", json!({"access_token": narrow})).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS", "{ack}");
    assert_eq!(saved(backend, &alice).await, format!("{}|", room.biology));
}

async fn a_join_that_fails_leaves_everything_as_it_was(backend: &Backend) {
    let (room, other) = (backend.classroom(), backend.classroom());
    let mut alice = backend.participant(room, "seated").await;
    alice.joins(&room.algebra).await;
    let row = format!("select * from agent_session where id = {}", alice.session);
    let before = backend.rows(&row).await;
    let everything = async || match backend.keys().await {
        Some(mut keys) => {
            let (user, lesson) = (room.user("seated"), &room.algebra);
            let hashes = [user, student_hash(lesson), format!("lesson_seat_{lesson}")];
            let mut seen = Vec::new();
            for key in hashes {
                seen.push(keys.hash(&key).await);
            }
            seen
        }
        None => Vec::new(),
    };
    let keys_before = everything().await;
    let failing: [(Value, &str); 4] = [
        (json!({"lesson_id": "no-such-lesson"}), NOT_FOUND),
        (json!({"lesson_id": other.algebra}), NOT_FOUND),
        (json!({"lesson_id": room.biology, "access_token": "nonsense"}), "invalid access token"),
        (json!({"lesson_id": "a.b"}), "invalid payload"),
    ];
    for (payload, message) in failing {
        alice.is_refused(payload, message).await;
    }
    assert_eq!(backend.rows(&row).await, before);
    assert_eq!(everything().await, keys_before);
    assert!(hears(backend, room, &mut alice, &room.algebra).await);
    assert!(!hears(backend, room, &mut alice, &room.biology).await);
}
