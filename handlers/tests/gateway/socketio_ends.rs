//! PROTOCOL 11, Session errors: what a client of Socket.IO gets, also in a drain, and whether its transport stays open.

use crate::common::{Backend, Packet, SOON, SocketIo, on_both_kinds};
use futures_util::future::join_all;
use serde_json::json;

on_both_kinds!(
    a_namespace_is_left_and_connected_again,
    the_same_agent_again_replaces_the_first,
    an_expired_token_closes_the_transport,
    what_is_malformed_closes_the_transport,
    a_packet_may_lack_its_data,
    a_drain_closes_transports_after_it_was_said,
    a_drain_is_said_when_it_begins,
    a_leave_during_a_join_leaves_nothing,
);

async fn a_namespace_is_left_and_connected_again(backend: &Backend) {
    let room = backend.classroom();
    let auth = json!({"token": room.participant("alice"), "classroom_id": room.id});
    let mut witness = backend.participant(room, "witness").await;
    backend.settled(room, [&mut witness]).await;
    let mut alice = SocketIo::open(backend, "").await;
    let first = alice.connects(&auth).await;
    let success = alice.event("connect_success").await;
    alice.joins(&room.algebra).await;
    alice.send("41").await;
    // Requests that reach the namespace after it was left are dropped.
    alice.send(r#"421["join_lesson"]"#).await;
    let whom = crate::common::Whom { id: room.agent("web", "alice"), session: success["session_id"].as_i64().unwrap() };
    witness.sees("entered", &whom).await;
    witness.sees("left", &whom).await;
    let second = alice.connects(&auth).await;
    assert_ne!(first, second, "each connection has its own sid");
    let success = alice.event("connect_success").await;
    alice.joins(&room.algebra).await;
    let again = crate::common::Whom { session: success["session_id"].as_i64().unwrap(), ..whom };
    witness.sees("entered", &again).await;
}

async fn the_same_agent_again_replaces_the_first(backend: &Backend) {
    let room = backend.classroom();
    let auth = json!({"token": room.participant("alice")});
    let mut first = SocketIo::connect(backend, &auth).await;
    first.joins(&room.algebra).await;
    let one = first.event("connect_success").await;
    let mut second = SocketIo::connect(backend, &auth).await;
    second.joins(&room.algebra).await;
    let two = second.event("connect_success").await;
    assert_eq!(one["session_id"], two["session_id"]);
    let error = first.event("session_error").await;
    assert_eq!(error, json!({"type": "replaced", "title": "Replaced", "status": 422}));
    assert_eq!(first.next().await, Packet::Disconnected);
    // The transport stays open, and the agent may enter again on it.
    first.connects(&auth).await;
    first.joins(&room.algebra).await;
    assert_eq!(first.event("connect_success").await["session_id"], one["session_id"]);
    assert_eq!(second.event("session_error").await["type"], "replaced");
    assert_eq!(second.next().await, Packet::Disconnected);
}

async fn an_expired_token_closes_the_transport(backend: &Backend) {
    let room = backend.classroom();
    let soon = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        room.token_with("alice", &json!({"exp": now + 2}))
    };
    let mut inside = SocketIo::connect(backend, &json!({"token": soon(), "classroom_id": room.id})).await;
    inside.event("connect_success").await;
    let mut outside = SocketIo::connect(backend, &json!({"token": soon(), "agent_label": "tab"})).await;
    for client in [&mut inside, &mut outside] {
        let error = client.event("session_error").await;
        assert_eq!((&error["type"], error["reconnect_after_ms"].is_u64()), (&json!("token_expired"), true), "{error}");
        assert_eq!(client.next().await, Packet::Closed(Some(3005)));
    }
}

async fn what_is_malformed_closes_the_transport(backend: &Backend) {
    let room = backend.classroom();
    // Before CONNECT every other packet is a fault.
    for text in ["4abc", "42[\"join_lesson\"]", "41", "2probe", "9", "40[]", "7"] {
        let mut client = SocketIo::open(backend, "").await;
        client.send(text).await;
        assert_eq!(client.next().await, Packet::Closed(Some(1002)), "{text}");
    }
    for text in ["42{}", "42[]", "42[\"connect\"]", "42abc[\"x\"]", "44{}", "40", "42/other,[\"x\"]", "42[\"x\"]y"] {
        let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
        client.send(text).await;
        assert_eq!(client.next().await, Packet::Closed(Some(1002)), "{text}");
    }
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    client.send_binary(b"of no packet").await;
    assert_eq!(client.next().await, Packet::Closed(Some(1002)));
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    client.send(r#"452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#).await;
    client.send_binary(&[0; 60 << 10]).await;
    client.send_binary(&[0; 10 << 10]).await;
    assert_eq!(client.next().await, Packet::Closed(Some(1002)), "all attachments together are limited");
}

async fn a_packet_may_lack_its_data(backend: &Backend) {
    let room = backend.classroom();
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    client.send("42").await;
    assert_eq!(client.event("request_error").await, json!({"event": "", "message": "invalid payload"}));
    client.send("427").await;
    let invalid = json!({"status": "ERROR", "message": "invalid payload"});
    assert_eq!(client.next().await, Packet::Ack(7, vec![invalid]));
    // Half of a surrogate pair is also a valid name.
    client.send(r#"428["\ud800"]"#).await;
    let Packet::Ack(8, answers) = client.next().await else { panic!("no answer") };
    assert_eq!(answers[0]["message"], "unknown event");
    client.send("43").await;
    client.joins(&room.algebra).await;
}

async fn a_drain_is_said_when_it_begins(backend: &Backend) {
    let backend = backend.another(Clone::clone);
    let room = &backend.classrooms()[0];
    let enters = (0..60).map(async |number| {
        let auth = json!({"token": room.participant(&format!("user-{number}")), "classroom_id": room.id});
        SocketIo::connect(&backend, &auth).await
    });
    let clients = join_all(enters).await;
    backend.gateway.terminate().unwrap();
    let ends = clients.into_iter().map(async |mut client| {
        let (mut told, mut served) = (0, false);
        loop {
            match client.next().await {
                Packet::Event(name, arguments) if name == "session_error" => {
                    assert_eq!(arguments[0]["type"], "terminated");
                    told += 1;
                    client.send_late(r#"421["ping"]"#).await;
                }
                Packet::Event(..) => {}
                Packet::Ack(1, answers) => {
                    assert_eq!(answers, [json!({"status": "SUCCESS", "data": {}})]);
                    served = true;
                }
                Packet::Closed(code) => {
                    assert_eq!((told, code), (1, Some(3001)));
                    return served;
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let served = join_all(ends).await;
    assert!(served.contains(&true), "transports are served until their place in the spread");
}

async fn a_drain_closes_transports_after_it_was_said(backend: &Backend) {
    let mut backend = backend.another(Clone::clone);
    let room = &backend.classrooms()[0];
    let mut joined = SocketIo::connect(&backend, &json!({"token": room.participant("alice")})).await;
    joined.joins(&room.algebra).await;
    joined.event("connect_success").await;
    let mut outside = SocketIo::connect(&backend, &json!({"token": room.participant("bob")})).await;
    let mut silent = SocketIo::open(&backend, "").await;
    backend.gateway.terminate().unwrap();
    for client in [&mut joined, &mut outside] {
        let error = client.event("session_error").await;
        assert_eq!((&error["type"], error["reconnect_after_ms"].is_u64()), (&json!("terminated"), true), "{error}");
        assert_eq!(client.next().await, Packet::Closed(Some(3001)));
    }
    assert_eq!(silent.next().await, Packet::Closed(Some(3001)));
    drop((joined, outside, silent));
    assert!(backend.gateway.wait(2 * SOON).unwrap().success());
}

async fn a_leave_during_a_join_leaves_nothing(backend: &Backend) {
    let room = backend.classroom();
    let auth = json!({"token": room.participant("alice")});
    for _ in 0..10 {
        let mut client = SocketIo::connect(backend, &auth).await;
        client.send(&format!(r#"42["join_lesson",{{"lesson_id":"{}"}}]"#, room.algebra)).await;
        client.send("41").await;
        client.connects(&auth).await;
    }
    let live = format!("select count(*) from agent_session where classroom_id = '{}'", room.id);
    let told = format!("select count(*) from agent_session_history where classroom_id = '{}'", room.id);
    crate::common::until(
        "every session that began has ended",
        SOON,
        async || (backend.value(&live).await, backend.value(&told).await),
        // A quick client enters again and takes over its own session.
        |(live, told)| live == "0" && told != "0",
    )
    .await;
}
