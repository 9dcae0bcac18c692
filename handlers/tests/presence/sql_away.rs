//! Requests while PostgreSQL is away (PROTOCOL 2, 7 and 9). Each request that needs PostgreSQL is refused for now, and
//! its connection stays as it was.

use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{Backend, SOON, Servers, until};

/// Returns the status of an answer. A request with the status 503 is repeated.
async fn status(address: SocketAddr, method: &str, path: &str, body: &Value) -> u16 {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(answer.contains("\r\nretry-after: 1\r\n"), status == 503, "{path}: {answer}");
    status
}

#[tokio::test]
async fn what_needs_sql_is_put_off() {
    let postgres = crate::common::start_postgres().unwrap();
    let servers = Servers { postgres: postgres.create_database().unwrap(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), Clone::clone);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    postgres.pause().unwrap();

    for (event, payload) in
        [("roster", json!({})), ("set_state", json!({"state": {}})), ("leave_lesson", json!({})), ("roster", json!({}))]
    {
        let ack = alice.client.request(event, payload).await.unwrap();
        assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("try again later")), "{event}: {ack}");
        assert!(ack["retry_after_ms"].is_u64(), "{ack}");
    }
    let (own, admin) = (backend.gateway.address(), backend.gateway.admin());
    let classroom = format!("/api/v1/classrooms/{}", room.id);
    let roster = format!("{classroom}/agents");
    let asked = [
        (own, "GET", format!("{roster}?access_token={}", room.participant("reader")), Value::Null),
        (admin, "GET", roster.clone(), Value::Null),
        (admin, "GET", format!("{classroom}/attendance"), Value::Null),
        (admin, "GET", "/api/v1/classrooms".to_owned(), Value::Null),
        (admin, "GET", "/api/v1/nodes".to_owned(), Value::Null),
        (admin, "GET", "/api/v1/sessions?user_id=a".to_owned(), Value::Null),
        (admin, "GET", "/api/v1/history?user_id=a".to_owned(), Value::Null),
        (admin, "GET", format!("/api/v1/lessons/{}/seats", room.algebra), Value::Null),
        (admin, "POST", "/api/v1/counters/agent".to_owned(), json!({"classroom_ids": [room.id]})),
        (admin, "POST", "/api/v1/disconnect".to_owned(), json!({"user_id": "nobody"})),
        (admin, "POST", "/api/v1/lessons/leave".to_owned(), json!({"session_id": alice.session})),
        (admin, "POST", "/api/v1/erase".to_owned(), json!({"user_id": "nobody"})),
    ];
    join_all(asked.iter().map(async |(address, method, path, body)| {
        assert_eq!(status(*address, method, path, body).await, 503, "{path}");
    }))
    .await;
    // The gateway cannot find out which lessons exist, so the event is published anyway.
    let event = json!({"subject": "lesson.nowhere.note", "body": {}});
    assert_eq!(status(admin, "POST", "/api/v1/publish", &event).await, 202);

    postgres.resume().unwrap();
    let asking = async || alice.client.request("roster", json!({})).await.unwrap();
    let ack = until("the roster", SOON, asking, |ack: &Value| ack["status"] == "SUCCESS").await;
    assert_eq!(ack["data"]["agents"][0]["session_id"], alice.session, "{ack}");
    let lesson = format!("select lesson_id from agent_session where id = {}", alice.session);
    backend.wait_for_rows(&lesson, &[&room.algebra]).await;
    backend.fence_on(&format!("lesson.{}.board", room.algebra)).is_next_for(&mut alice).await;
    assert_eq!(status(admin, "GET", &roster, &Value::Null).await, 200);
}
