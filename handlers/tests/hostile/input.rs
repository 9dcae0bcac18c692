//! Malformed messages, ids and numbers are refused, and leave nothing behind.

use std::time::{Duration, Instant};

use rollcall_loadtest::Client;
use serde_json::{Value, json};

use crate::common::{Agent, Backend, Classroom, SOON, on_both_kinds, refused, session_error};
use crate::{raw, with};

on_both_kinds!(
    an_id_that_is_none_goes_near_nothing,
    an_invalid_label_is_refused,
    numbers_out_of_range_are_errors,
    whatever_is_no_request_is_answered_with_an_error_at_once,
);

/// Ids with characters that mean something in a subject, a key, a query, a path or a terminal.
fn odd_ids() -> Vec<String> {
    let odd = [
        "",
        "*",
        ">",
        "a.b",
        ".",
        "..",
        "../x",
        "a b",
        " ",
        "a\r\nb",
        "a\u{0}b",
        "' OR 1=1 --",
        "{a}",
        "\u{1b}[2J",
        "ä",
    ];
    odd.into_iter().map(str::to_owned).chain(["a".repeat(65), "a".repeat(10_000)]).collect()
}

async fn an_id_that_is_none_goes_near_nothing(backend: &Backend) {
    // The test has a gateway of its own, because it counts the handlers that run.
    let backend = &backend.another(Clone::clone);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let ran = || backend.gateway.metric("rollcall_function_invocations_total", &["function=\"join_lesson\""]);
    let before = ran().unwrap();
    for id in odd_ids() {
        for payload in [json!({"lesson_id": id}), json!({"lesson_id": id, "access_token": room.participant("alice")})] {
            alice.is_refused(payload, "invalid payload").await;
        }
    }
    for payload in [json!({"lesson_id": 7}), json!({"lesson_id": ["a"]}), json!({"lesson_id": {"$ne": 1}}), json!([1])]
    {
        alice.is_refused(payload, "invalid payload").await;
    }
    assert_eq!(ran().unwrap(), before, "no function ran");
    let place = format!("select lesson_id from agent_session where id = {}", alice.session);
    assert_eq!(backend.value(&place).await, room.algebra, "she is where she was");
    // An invalid lesson id in the URL counts as none.
    for id in ["%2A", "%3E", "a.b", "%00", "%0d%0a", "%1b", "..%2f"] {
        let path = format!("/ws?lesson_id={id}");
        let mut client = Client::connect_with(backend.gateway.address(), &path, &[]).await.unwrap();
        client.connect_request(&room.participant("bob"), &room.id, "web").await.unwrap();
        assert_eq!(client.request("join_lesson", json!({})).await.unwrap()["message"], "lesson_id is required", "{id}");
        client.close().await.unwrap();
    }
}

async fn an_invalid_label_is_refused(backend: &Backend) {
    let room = backend.classroom();
    let token = room.participant("alice");
    for label in odd_ids() {
        let request = json!({"type": "connect_request", "payload": room.connect_request(&token, &label)});
        session_error(&refused(backend, &request.to_string()).await, "serialization_failed", 422, 3501);
        let mut request = json!({"type": "connect_request", "payload": room.connect_request(&token, "web")});
        request["payload"]["classroom_id"] = json!(label);
        session_error(&refused(backend, &request.to_string()).await, "serialization_failed", 422, 3501);
    }
    assert_eq!(backend.live(room).await, [""; 0]);
}

async fn numbers_out_of_range_are_errors(backend: &Backend) {
    let room = backend.classroom();
    for offset in ["-1", "18446744073709551616", "1.5", "1e3", "\"1\"", "true", "9e999", "00"] {
        let mut request =
            json!({"type": "connect_request", "payload": room.connect_request(&room.participant("alice"), "web")});
        request["payload"]["resume"] = json!({"epoch": "x", "offset": "OFFSET"});
        let request = request.to_string().replace("\"OFFSET\"", offset);
        session_error(&refused(backend, &request).await, "serialization_failed", 422, 3501);
    }
    let path = |query: &str| format!("/api/v1/classrooms/{}/agents?{query}", room.id);
    for query in [
        "sequence_id=-9223372036854775809",
        "sequence_id=1e3",
        "sequence_id=%27",
        "limit=-1",
        "limit=x",
        "sequence_id='%20OR%201=1",
    ] {
        assert_eq!(backend.gateway.get(&path(query)).unwrap().0, 400, "{query}");
    }
    for classroom in ["'%20OR%201=1", "..", "%00", "*", "00000000"] {
        let (status, _) = backend.gateway.get(&format!("/api/v1/classrooms/{classroom}/agents")).unwrap();
        assert!([400, 404].contains(&status), "{classroom}: {status}");
    }
}

/// A connection that has entered, and gets an answer within a second to whatever it sends.
struct Patient(Agent);

impl Patient {
    async fn answers(&mut self, text: &str) -> Value {
        let asked = Instant::now();
        self.0.client.send_text(text).await.unwrap();
        let answer = self.0.client.next_message(SOON).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?} for {:.60}", asked.elapsed(), text);
        answer
    }
}

async fn whatever_is_no_request_is_answered_with_an_error_at_once(backend: &Backend) {
    let room: &Classroom = backend.classroom();
    let mut alice = Patient(backend.participant(room, "alice").await);
    let spaces = " ".repeat((64 << 10) - 40);
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let join = |payload: &str| format!(r#"{{"type":"join_lesson","ref":1,"payload":{payload}}}"#);
    let nonsense = |payload: &str| format!(r#"{{"type":"nonsense","ref":1,"payload":{payload}}}"#);
    for (text, message) in [
        (spaces.clone(), "invalid payload"),
        (format!(r#"{spaces}{{"type":"nonsense"}}"#), "unknown event"),
        (deep("[", "]"), "invalid payload"),
        (deep("[", ""), "invalid payload"),
        (r#"{"a":"#.repeat(10_000), "invalid payload"),
        (nonsense(&deep("[", "]")), "unknown event"),
        (nonsense(&deep("[", "")), "invalid payload"),
        (join(&format!(r#"{{"lesson_id":{}}}"#, deep("[", "]"))), "invalid payload"),
        (join(&format!(r#"{{"unknown":{},"lesson_id":"none"}}"#, deep("[", "]"))), "lesson not found"),
        (r#"{"type":"nonsense","type":"join_lesson","ref":1}"#.into(), "invalid payload"),
        (r#"{"type":"nonsense","ref":1,"ref":2}"#.into(), "invalid payload"),
        (join(r#"{"lesson_id":"a","lesson_id":"b"}"#), "invalid payload"),
        (join(r#"{"x":1,"x":2,"lesson_id":"none"}"#), "lesson not found"),
        (join(r#"{"lesson_id":"\ud800"}"#), "invalid payload"),
        (nonsense(r#"{"skipped":"\ud800"}"#), "unknown event"),
        (r#"{"type":"\ud800"}"#.into(), "invalid payload"),
        ("\u{feff}{}".into(), "invalid payload"),
        (format!(r#"{{"type":"nonsense","ref":{}}}"#, "9".repeat(60_000)), "invalid payload"),
        (r#"{"type":"nonsense"} {}"#.into(), "invalid payload"),
    ] {
        let answer = alice.answers(&text).await;
        assert_eq!((&answer["type"], &answer["message"]), (&json!("ack"), &json!(message)), "{text:.80}");
    }
    for number in ["9223372036854775808", "-9223372036854775809", "1.0", "1e3", "[]"] {
        let answer = alice.answers(&format!(r#"{{"type":"nonsense","ref":{number}}}"#)).await;
        assert_eq!(
            (answer.get("ref"), &answer["message"]),
            (Some(&Value::Null), &json!("invalid payload")),
            "{number}"
        );
    }
    alice.0.joins(&room.algebra).await;
}

#[tokio::test]
async fn client_input_is_escaped_in_the_log() {
    let backend = with(&[("ROLLCALL_LOG", "trace"), ("NO_COLOR", "1")]);
    let room = backend.classroom();
    let address = backend.gateway.address();
    let evil = "\u{1b}[2J\u{7}c4ught";
    for text in [
        json!({"type": "connect_request", "payload": room.connect_request(&room.participant("a"), evil)}).to_string(),
        json!({"type": evil, "payload": {}}).to_string(),
        evil.to_owned(),
        "line\r\nc4ught: a line of its own".to_owned(),
    ] {
        refused(&backend, &text).await;
    }
    let (_stream, answer) = raw::ask(address, &[("User-Agent", "c4ught\u{1b}[2J")]).await;
    assert_ne!(answer.status, 101, "a control character in a header is no HTTP");
    let mut alice = backend.participant(room, "alice").await;
    alice.is_refused(json!({"lesson_id": evil}), "invalid payload").await;
    let ack = alice.client.request(evil, json!({})).await.unwrap();
    assert_eq!(ack["message"], "unknown event");
    let said = backend.gateway.output();
    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("c4ught")), "{said}");
}
