//! Functions over HTTP that misbehave: the client that calls one is told to try again later, and no other client
//! notices.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::common::{Agent, Backend, Function, FunctionsFile, Reply, SOON, until};

/// Expects the answer that a client gets if the function has no valid answer.
async fn is_asked_to_come_again(agent: &mut Agent, event: &str, payload: Value) {
    let ack = agent.client.request(event, payload.clone()).await.unwrap();
    assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("try again later")), "{event} {payload}");
    assert!(ack["retry_after_ms"].is_u64(), "{ack}");
}

async fn is_answered(agent: &mut Agent, event: &str) {
    let ack = agent.client.request(event, json!({})).await.unwrap();
    assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &json!({"fine": true})), "{event}: {ack}");
}

fn fine() -> Reply {
    Reply::Json(200, json!({"data": {"fine": true}}))
}

fn head(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

/// Gives a different wrong answer for each kind of fault.
fn misbehave(call: &Value) -> Reply {
    let raised = json!({"to": "lesson", "entity_type": "hand", "operation": "raised", "body": {}});
    match call["payload"]["how"].as_str().unwrap() {
        "crash" => Reply::Crash,
        "hang" => Reply::Hang,
        "slow bytes" => Reply::Drip,
        "error" => Reply::Json(500, json!({"data": {}})),
        "redirect" => Reply::Bytes(b"HTTP/1.1 307 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_vec()),
        "half a body" => Reply::Bytes([head(100), b"{\"data\":{".to_vec()].concat()),
        "huge body" => Reply::Bytes([head(400_000), b"{\"data\":{\"a\":\"".to_vec(), vec![b'x'; 399_000]].concat()),
        "huge head" => Reply::Bytes([b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 100_000]].concat()),
        "no HTTP" => Reply::Bytes(b"220 mail.example ESMTP\r\n".to_vec()),
        "created" => Reply::Json(201, json!({"data": {}})),
        "a number" => Reply::Json(200, json!(7)),
        "data of another type" => Reply::Json(200, json!({"data": [1], "publish": [raised]})),
        "forged presence" => {
            let left = json!({"to": "classroom", "entity_type": "agent", "operation": "left", "body": {}});
            Reply::Json(200, json!({"publish": [raised, left]}))
        }
        "an event that is too large" => {
            let large = json!({"to": "lesson", "entity_type": "hand", "operation": "raised", "body": {"a": "x".repeat(140_000)}});
            Reply::Json(200, json!({"publish": [raised, large]}))
        }
        "too many events" => Reply::Json(200, json!({"publish": vec![raised; 101]})),
        "a long message" => Reply::Json(400, json!({"message": "x".repeat(201)})),
        "no message" => Reply::Json(422, json!({"detail": []})),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_wrong_answer_is_answered_and_does_nothing() {
    let wrong = Function::start(misbehave).await;
    let right = Function::start(|_| fine()).await;
    let limits = "timeout = \"500ms\"\nmax_answer = \"256KiB\"\nopen_after = 1000";
    let file = FunctionsFile::new(&[("wrong", &wrong.url(), limits), ("right", &right.url(), "")]);
    let backend = Backend::embedded().another(|options| file.on(options));
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    alice.joins(&room.algebra).await;
    bob.joins(&room.algebra).await;
    backend.settled(room, [&mut alice, &mut bob]).await;
    let ways = [
        "crash",
        "hang",
        "slow bytes",
        "error",
        "redirect",
        "half a body",
        "huge body",
        "huge head",
        "no HTTP",
        "created",
        "a number",
        "data of another type",
        "forged presence",
        "an event that is too large",
        "too many events",
        "a long message",
        "no message",
    ];
    for (number, how) in ways.iter().enumerate() {
        is_asked_to_come_again(&mut alice, "wrong", json!({"how": how})).await;
        assert_eq!(wrong.calls().len(), number + 1, "{how}: sent once");
        is_answered(&mut alice, "right").await;
    }
    // None of these functions has published anything.
    backend.fence_on(&format!("lesson.{}.board", room.algebra)).is_next_for(&mut bob).await;
}

#[tokio::test]
async fn a_function_that_hangs_holds_up_nobody_else() {
    let hanging = Function::start(|_| Reply::Hang).await;
    let right = Function::start(|_| fine()).await;
    let limits = "timeout = \"2s\"\nconcurrency = 2\nqueue = 2\nopen_after = 1000";
    let file = FunctionsFile::new(&[("hangs", &hanging.url(), limits), ("right", &right.url(), "")]);
    let backend = Backend::embedded().another(|options| file.on(options));
    let room = backend.classroom();
    let mut callers = Vec::new();
    for number in 0..6 {
        callers.push(backend.participant(room, &format!("caller-{number}")).await);
    }
    let mut alice = backend.participant(room, "alice").await;
    let calls = join_all(callers.iter_mut().map(|caller| is_asked_to_come_again(caller, "hangs", json!({}))));
    let others = async {
        // Two calls run, two wait, and the other two were refused at once.
        let busy = async || {
            let labels = ["function=\"hangs\"", "outcome=\"busy\""];
            backend.gateway.metric("rollcall_function_calls_total", &labels).unwrap()
        };
        until("those that find no place", SOON, busy, |count| *count >= 2.0).await;
        assert!(hanging.calls().len() <= 2);
        for _ in 0..20 {
            is_answered(&mut alice, "right").await;
        }
        alice.joins(&room.algebra).await;
    };
    tokio::join!(calls, others);
}

#[tokio::test]
async fn a_dead_function_is_left_alone_until_it_is_back() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let limits = "open_after = 3\nopen_for = \"100ms\"";
    let file = FunctionsFile::new(&[("dead", &format!("http://127.0.0.1:{port}/"), limits)]);
    let backend = Backend::embedded().another(|options| file.on(options));
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    for _ in 0..10 {
        is_asked_to_come_again(&mut alice, "dead", json!({})).await;
    }
    let metric = |name: &str, label: &str| backend.gateway.metric(name, &["function=\"dead\"", label]).unwrap();
    assert_eq!(metric("rollcall_function_circuit_open", ""), 1.0);
    assert!(metric("rollcall_function_calls_total", "circuit_open") >= 1.0);
    let _function = Function::start_at(port, |_| fine()).await;
    let ask = async || alice.client.request("dead", json!({})).await.unwrap()["status"].clone();
    until("the function is called again", SOON, ask, |status| *status == "SUCCESS").await;
    assert_eq!(metric("rollcall_function_circuit_open", ""), 0.0);
}

/// A client library would send such a call a second time on another connection. The gateway must not.
#[tokio::test]
async fn an_idle_connection_that_the_function_has_closed_is_no_second_call() {
    let closing = Function::start(|_| {
        let body = r#"{"data":{"fine":true}}"#;
        // The answer says that the connection is kept, and then the function closes it. The next call finds it closed
        // before or after it is sent.
        Reply::Bytes([head(body.len()), body.as_bytes().to_vec()].concat())
    })
    .await;
    let file = FunctionsFile::new(&[("closes", &closing.url(), "open_after = 1000")]);
    let backend = Backend::embedded().another(|options| file.on(options));
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    for number in 1..=50 {
        let ack = alice.client.request("closes", json!({})).await.unwrap();
        assert!(ack["status"] == "SUCCESS" || ack["message"] == "try again later", "{ack}");
        assert!(closing.calls().len() <= number, "one call was sent twice");
    }
}
