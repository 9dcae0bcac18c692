//! PROTOCOL 11 and 2, Limits: each namespace of a transport counts as a connection, and a client whose CONNECT was
//! refused counts as long as it may try again.

use serde_json::{Value, json};

use crate::common::{Backend, Classroom, SOON, SocketIo, until};
use crate::raw::ask;
use crate::{dropped, with};

/// Sends CONNECT for a namespace on a client's transport. Returns its answer, or its refusal as the error.
async fn asks(client: &mut SocketIo, namespace: &str, auth: &Value) -> Result<Value, Value> {
    client.send(&format!("40{namespace},{auth}")).await;
    loop {
        let text = client.text().await.expect("the transport stays");
        let data = |kind: &str| {
            let data = text.strip_prefix(&format!("{kind}{namespace},"))?;
            Some(serde_json::from_str(data).unwrap())
        };
        match (data("40"), data("44")) {
            (Some(answer), _) => return Ok(answer),
            (_, Some(refusal)) => return Err(refusal),
            (None, None) => {}
        }
    }
}

/// Joins the lesson in a namespace. Other packets may come before the ack.
async fn joins(client: &mut SocketIo, prefix: &str, lesson: &str) {
    client.send(&format!("42{prefix}7{}", json!(["join_lesson", {"lesson_id": lesson}]))).await;
    loop {
        let text = client.text().await.expect("the transport stays");
        if let Some(ack) = text.strip_prefix(&format!("43{prefix}7")) {
            return assert_eq!(ack, r#"[{"status":"SUCCESS","data":{}}]"#);
        }
    }
}

fn serving(settings: &[(&str, &str)]) -> Backend {
    let namespaces = ("ROLLCALL_SOCKETIO_NAMESPACES", "/,/teacher,/participant");
    with(&[&[namespaces], settings].concat())
}

fn auth(room: &Classroom) -> Value {
    json!({"token": room.participant("alice"), "classroom_id": room.id})
}

fn is_too_many(refusal: &Value) {
    let Value::Object(data) = &refusal["data"] else { panic!("{refusal}") };
    assert_eq!((&refusal["message"], &data["status"]), (&json!("too_many_requests"), &json!(429)), "{refusal}");
    assert!(data["reconnect_after_ms"].is_u64(), "{refusal}");
}

#[tokio::test]
async fn a_further_namespace_meets_the_limits_of_connections() {
    for (settings, counted) in [
        (&[("ROLLCALL_MAX_CONNECTIONS", "2")][..], Some("node_full")),
        (&[("ROLLCALL_MAX_CONNECTIONS_PER_IP", "2"), ("ROLLCALL_LIMIT_LOOPBACK", "true")], Some("client_full")),
        (&[("ROLLCALL_USER_SESSIONS", "2")], None),
    ] {
        let backend = serving(settings);
        let room = backend.classroom();
        let mut client = SocketIo::connect(&backend, &auth(room)).await;
        asks(&mut client, "/teacher", &auth(room)).await.expect("the second has room");
        is_too_many(&asks(&mut client, "/participant", &auth(room)).await.expect_err("the third has none"));
        if let Some(counted) = counted {
            assert_eq!(dropped(&backend, counted), 1.0);
        }
        joins(&mut client, "", &room.algebra).await;
        joins(&mut client, "/teacher,", &room.algebra).await;
        client.send("41/teacher,").await;
        let again = async || asks(&mut client, "/participant", &auth(room)).await;
        until("there is room again", SOON, again, Result::is_ok).await.unwrap();
        joins(&mut client, "/participant,", &room.biology).await;
        joins(&mut client, "", &room.biology).await;
    }
}

#[tokio::test]
async fn a_further_namespace_takes_from_its_users_connects() {
    let backend = serving(&[("ROLLCALL_USER_CONNECT_RATE", "1")]);
    let room = backend.classroom();
    let mut client = SocketIo::connect(&backend, &auth(room)).await;
    let again = async || {
        let answer = asks(&mut client, "/teacher", &auth(room)).await;
        if answer.is_ok() {
            client.send("41/teacher,").await;
        }
        answer
    };
    is_too_many(&until("it connects too often", SOON, again, Result::is_err).await.unwrap_err());
    joins(&mut client, "", &room.algebra).await;
}

#[tokio::test]
async fn who_was_refused_counts_and_makes_way() {
    let backend = with(&[("ROLLCALL_MAX_UNAUTHENTICATED", "1")]);
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let junk = r#"40{"token":"x"}"#;
    let mut alice = SocketIo::open(&backend, "").await;
    alice.send(junk).await;
    assert!(alice.text().await.unwrap().starts_with("44"));
    alice.connects(&json!({"token": room.participant("alice")})).await;

    // Alice has entered, so she no longer counts as unauthenticated.
    let mut eve = SocketIo::open(&backend, "").await;
    eve.send(junk).await;
    assert!(eve.text().await.unwrap().starts_with("44"));
    let asked = async || ask(address, &[]).await;
    until("the refused client is closed, and makes room", SOON, asked, |(_, answer)| answer.status == 101).await;
    assert_eq!(eve.text().await, Err(Some(3013)));
    assert_eq!(dropped(&backend, "silent"), 1.0);
    alice.joins(&room.algebra).await;
}

#[tokio::test]
async fn wrong_tokens_count_for_the_address() {
    let backend = with(&[("ROLLCALL_LIMIT_LOOPBACK", "true"), ("ROLLCALL_GUEST_RATE", "1")]);
    let room = backend.classroom();
    let mut eve = SocketIo::open(&backend, "").await;
    let tries = async || {
        eve.send_late(r#"40{"token":"x"}"#).await;
        eve.text().await
    };
    let end = until("its transport is closed", SOON, tries, Result::is_err).await;
    assert_eq!(end, Err(Some(3004)), "before its own rate, or the time for CONNECT, ends");
    // A classmate with the same address may still connect.
    SocketIo::connect(&backend, &json!({"token": room.participant("alice")})).await.joins(&room.algebra).await;
}
