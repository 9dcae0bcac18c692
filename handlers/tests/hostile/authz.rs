//! The authorization service: what it is asked, and what follows from its answers and from their absence.

use std::time::{Duration, Instant};

use rollcall_loadtest::token::AUDIENCE;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::common::{Backend, Classroom, SOON, next_text, refused, session_error};
use crate::hook::Hook;
use crate::raw::answer;
use crate::with;

fn behind(hook: &Hook) -> Backend {
    with(&[("ROLLCALL_AUTHZ_URL", &hook.url()), ("ROLLCALL_AUTHZ_TIMEOUT", "500ms")])
}

fn request(room: &Classroom, name: &str) -> String {
    json!({"type": "connect_request", "payload": room.connect_request(&room.participant(name), "web")}).to_string()
}

fn question(room: &Classroom, name: &str, object: Value) -> Value {
    json!({
        "subject": {"namespace": AUDIENCE, "value": room.user(name)},
        "object": {"namespace": AUDIENCE, "value": object},
        "action": "connect",
    })
}

#[tokio::test]
async fn it_is_asked_in_the_family_s_form_and_once_in_a_while() {
    let hook = Hook::start(|_| Some(200)).await;
    let backend = behind(&hook);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    assert_eq!(hook.questions(), [question(room, "alice", json!(["classrooms", room.id]))]);
    alice.joins(&room.algebra).await;
    let lesson = question(room, "alice", json!(["classrooms", room.id, "lessons", room.algebra]));
    assert_eq!(hook.questions()[1..], [lesson]);
    alice.joins(&room.algebra).await;
    let mut again = backend.participant(room, "alice").await;
    again.joins(&room.algebra).await;
    assert_eq!(hook.questions().len(), 2, "the answers are kept for a while");
    backend.participant(room, "bob").await;
    assert_eq!(hook.questions().len(), 3, "they are nobody else's");
}

#[tokio::test]
async fn whoever_reads_the_roster_over_http_is_asked_about_with_another_action() {
    let hook = Hook::start(|question| {
        let may = question["action"] == "connect" || question["subject"]["value"].as_str()?.starts_with("alice");
        Some(if may { 200 } else { 403 })
    })
    .await;
    let backend = behind(&hook);
    let room = backend.classroom();
    backend.participant(room, "alice").await;
    let read = async |name: &str| {
        let mut stream = tokio::net::TcpStream::connect(backend.gateway.address()).await.unwrap();
        let (path, token) = (format!("/api/v1/classrooms/{}/agents", room.id), room.participant(name));
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        answer(&mut stream).await.status
    };
    assert_eq!([read("alice").await, read("bob").await], [200, 403]);
    let mut asked = question(room, "alice", json!(["classrooms", room.id]));
    asked["action"] = json!("read");
    assert_eq!(hook.questions()[1], asked, "a right to connect is none to read");
}

#[tokio::test]
async fn objects_may_have_a_namespace_of_their_own() {
    let hook = Hook::start(|_| Some(200)).await;
    let backend = with(&[
        ("ROLLCALL_AUTHZ_URL", &hook.url()),
        ("ROLLCALL_AUTHZ_NAMESPACE", "rollcall.example"),
        ("ROLLCALL_AUTHZ_TTL", "0s"),
    ]);
    let room = backend.classroom();
    backend.participant(room, "alice").await.leaves().await;
    backend.participant(room, "alice").await;
    let questions = hook.questions();
    assert_eq!(questions.len(), 2, "nothing is kept: {questions:?}");
    assert_eq!(questions[0]["object"]["namespace"], "rollcall.example");
    assert_eq!(questions[0]["subject"]["namespace"], AUDIENCE);
}

#[tokio::test]
async fn a_denial_says_nothing_about_who_is_in_the_classroom() {
    let hook = Hook::start(|question| {
        let user = question["subject"]["value"].as_str().unwrap();
        Some(if user.starts_with("mallory") { 403 } else { 200 })
    })
    .await;
    let backend = behind(&hook);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    for _ in 0..2 {
        let closing = refused(&backend, &request(room, "mallory")).await;
        let payload = json!({"type": "access_denied", "title": "Access denied", "status": 403});
        let error = json!({"type": "unrecoverable_session_error", "payload": payload});
        assert_eq!((closing.code, closing.error), (Some(3507), Some(error)));
    }
    assert_eq!(backend.live(room).await, [format!("{}|{}", alice.session, alice.id)]);
    backend.nothing_came(room, [&mut alice]).await;
    assert_eq!(hook.questions().len(), 3, "a no is not kept");
}

#[tokio::test]
async fn a_denied_lesson_reads_as_not_found_and_changes_nothing() {
    let hook = Hook::start(|question| {
        let lesson = question["object"]["value"].get(3).and_then(Value::as_str);
        Some(if lesson.is_some_and(|lesson| lesson.starts_with("biology")) { 404 } else { 200 })
    })
    .await;
    let backend = behind(&hook);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    alice.is_refused(json!({"lesson_id": room.biology}), "lesson not found").await;
    alice.is_refused(json!({"lesson_id": "no-such-lesson"}), "lesson not found").await;
    backend.publish(&format!("lesson.{}.board", room.biology), &json!({"secret": 1}));
    let fence = backend.fence_on(&format!("lesson.{}.board", room.algebra));
    fence.is_next_for(&mut alice).await;
    let lesson = format!("select lesson_id from agent_session where id = {}", alice.session);
    assert_eq!(backend.value(&lesson).await, room.algebra);
}

#[tokio::test]
async fn no_client_connects_while_the_service_is_away_slow_or_broken() {
    let silent = Hook::start(|_| None).await;
    let broken = Hook::start(|_| Some(500)).await;
    // An address where no server listens.
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let busy = Hook::start(|_| Some(503)).await;
    for url in [silent.url(), broken.url(), busy.url(), gone] {
        let backend = with(&[("ROLLCALL_AUTHZ_URL", &url), ("ROLLCALL_AUTHZ_TIMEOUT", "500ms")]);
        let room = backend.classroom();
        let asked = Instant::now();
        let closing = refused(&backend, &request(room, "alice")).await;
        session_error(&closing, "internal_server_error", 500, 3004);
        assert!(asked.elapsed() < Duration::from_secs(2), "{url}: {:?}", asked.elapsed());
        assert_eq!(backend.live(room).await, [""; 0], "{url}");
        let counted = backend.gateway.metric("rollcall_backend_errors_total", &["backend=\"authz\""]).unwrap();
        assert_eq!(counted, 1.0, "{url}");
    }
}

#[tokio::test]
async fn no_ping_comes_before_the_answer_to_connect_request() {
    let hook = Hook::start(|_| None).await;
    let backend = with(&[
        ("ROLLCALL_AUTHZ_URL", &hook.url()),
        ("ROLLCALL_AUTHZ_TIMEOUT", "2500ms"),
        ("ROLLCALL_PING_INTERVAL", "1s"),
        ("ROLLCALL_PONG_TIMEOUT", "900ms"),
    ]);
    let mut client = backend.client().await;
    client.send_text(&request(backend.classroom(), "alice")).await.unwrap();
    let first = next_text(&mut client, SOON).await;
    assert!(first.contains("internal_server_error"), "{first}");
}

#[tokio::test]
async fn a_hook_that_goes_away_during_a_session_opens_no_lesson() {
    let hook = Hook::start(|question| Some(if question["object"]["value"].get(3).is_some() { 503 } else { 200 })).await;
    let backend = behind(&hook);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let ack = alice.client.join_lesson(&room.algebra).await.unwrap();
    assert_eq!((&ack["message"], ack["retry_after_ms"].is_u64()), (&json!("try again later"), true), "{ack}");
}

#[tokio::test]
async fn a_redirect_is_no_answer_and_is_not_followed() {
    let hook = Hook::start(|_| Some(302)).await;
    let backend = behind(&hook);
    let room = backend.classroom();
    session_error(&refused(&backend, &request(room, "alice")).await, "internal_server_error", 500, 3004);
    assert_eq!(hook.questions().len(), 1);
}

#[tokio::test]
async fn the_family_s_list_of_actions_decides() {
    for (actions, admitted) in [("[\"connect\"]", true), ("[]", false), ("[\"read\"]", false), ("<html>", false)] {
        let hook = Hook::answering(actions).await;
        let backend = behind(&hook);
        let room = backend.classroom();
        if admitted {
            backend.participant(room, "alice").await;
        } else {
            session_error(&refused(&backend, &request(room, "alice")).await, "access_denied", 403, 3507);
        }
    }
}

#[tokio::test]
async fn a_limit_of_the_service_is_a_reason_to_come_again() {
    let hook = Hook::start(|_| Some(429)).await;
    let backend = behind(&hook);
    let room = backend.classroom();
    session_error(&refused(&backend, &request(room, "alice")).await, "too_many_requests", 429, 3013);
    let counted = backend.gateway.metric("rollcall_authz_questions_total", &["outcome=\"busy\""]).unwrap();
    assert_eq!(counted, 1.0);
}
