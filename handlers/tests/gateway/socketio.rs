//! PROTOCOL 11: CONNECT, the places of a token, classrooms, events and acks.

use crate::common::{Backend, Packet, SocketIo, agent_event, on_both_kinds, student_hash};
use rollcall_loadtest::token;
use serde_json::{Value, json};

on_both_kinds!(
    a_client_is_let_in_wherever_its_token_stands,
    a_classroom_in_auth_is_entered_at_once,
    a_label_is_the_namespace_s_where_none_is_given,
    without_a_classroom_only_a_lesson_is_joined,
    an_event_without_a_callback_hears_of_its_error,
    a_class_of_both_dialects_sees_itself_whole,
    events_of_services_have_names,
    a_lesson_is_that_of_payload_or_auth_or_query,
    a_join_moves_to_the_lesson_s_classroom,
    guests_join_without_entering,
    binary_data_is_no_payload,
);

async fn a_client_is_let_in_wherever_its_token_stands(backend: &Backend) {
    let room = backend.classroom();
    let user = |name: &str| room.participant(name);
    let label = |name: &str| format!("{}.{}.{}", "web", room.user(name), token::AUDIENCE);
    let clients = [
        ("a", SocketIo::open(backend, "").await, json!({"token": user("a")})),
        ("b", SocketIo::open(backend, "").await, json!({"access_token": user("b"), "token": null})),
        ("c", SocketIo::open_with(backend, "&token=x", Some(&format!("Bearer {}", user("c")))).await, json!({})),
        ("g", SocketIo::open_with(backend, "", Some(&format!("bearer {}", user("g")))).await, json!({})),
        ("d", SocketIo::open(backend, &format!("&access_token={}", user("d"))).await, json!({})),
        ("e", SocketIo::open(backend, &format!("&auth={}", user("e"))).await, json!({"else": [1]})),
        // The token of CONNECT counts before that of the handshake.
        ("f", SocketIo::open_with(backend, "&token=x", Some("Bearer y")).await, json!({"token": user("f")})),
    ];
    for (name, mut client, auth) in clients {
        assert_eq!(client.open["maxPayload"], 65_536, "{}", client.open);
        assert_eq!((&client.open["pingInterval"], &client.open["pingTimeout"]), (&json!(30_000), &json!(20_000)));
        let sid = client.connects(&auth).await;
        assert_ne!(client.open["sid"], sid.as_str());
        client.joins(&room.algebra).await;
        let success = client.event("connect_success").await;
        assert_eq!((&success["agent_id"], &success["sid"]), (&json!(label(name)), &json!(sid)));
    }
    for (auth, detail) in [(json!({}), "token missing"), (json!({"token": "x"}), "token malformed")] {
        let mut client = SocketIo::open(backend, "").await;
        client.send(&format!("40{auth}")).await;
        let Packet::Refused(error) = client.next().await else { panic!("let in with {auth}") };
        assert_eq!(error["message"], "unauthenticated");
        assert_eq!((&error["data"]["status"], &error["data"]["detail"]), (&json!(401), &json!(detail)));
        // The transport stays open, and another CONNECT may succeed.
        client.connects(&json!({"token": user("a")})).await;
    }
}

async fn a_classroom_in_auth_is_entered_at_once(backend: &Backend) {
    let room = backend.classroom();
    let mut witness = backend.participant(room, "witness").await;
    backend.settled(room, [&mut witness]).await;
    let mut alice = SocketIo::open(backend, &format!("&classroom_id={}", room.id)).await;
    let sid = alice.connects(&json!({"token": room.participant("alice"), "agent_label": "tab"})).await;
    let success = alice.event("connect_success").await;
    assert_eq!((&success["sid"], &success["agent_id"]), (&json!(sid), &json!(room.agent("tab", "alice"))));
    let event = witness.client.next_event(crate::common::SOON).await.unwrap();
    assert_eq!(
        event.body,
        agent_event("entered", success["session_id"].as_i64().unwrap(), &room.agent("tab", "alice"))
    );
    // A client in a classroom finds only that classroom's lessons.
    let other = backend.classroom();
    let ack = alice.emit("join_lesson", &[json!({"lesson_id": other.algebra})]).await;
    assert_eq!(ack, json!({"status": "ERROR", "message": "lesson not found"}));
    alice.joins(&room.algebra).await;

    let mut denied = SocketIo::open(backend, "").await;
    let elsewhere = room.token_with("eve", &json!({"classroom_ids": [other.id]}));
    denied.send(&format!("40{}", json!({"token": elsewhere, "classroom_id": room.id}))).await;
    let Packet::Refused(error) = denied.next().await else { panic!("let in") };
    assert_eq!((&error["message"], &error["data"]["status"]), (&json!("access_denied"), &json!(403)));
    denied.send(&format!("40{}", json!({"token": elsewhere, "classroom_id": "x"}))).await;
    let Packet::Refused(error) = denied.next().await else { panic!("let in") };
    assert_eq!(error["message"], "serialization_failed");
}

async fn a_label_is_the_namespace_s_where_none_is_given(backend: &Backend) {
    let backend = backend.another(|options| options.clone().env("ROLLCALL_SOCKETIO_NAMESPACES", "/,/teachers/app"));
    let room = backend.classroom();
    let mut other = SocketIo::open(&backend, "").await.in_namespace("/else");
    other.send("40/else,").await;
    assert_eq!(other.next().await, Packet::Refused(json!({"message": "Invalid namespace"})));
    let mut client = SocketIo::open(&backend, "").await.in_namespace("/teachers/app");
    client.send(&format!("40/teachers/app,{}", json!({"token": room.teacher("tess")}))).await;
    assert!(matches!(client.next().await, Packet::Connected(_)));
    client.joins(&room.algebra).await;
    assert_eq!(client.event("connect_success").await["agent_id"], room.agent("teachers-app", "tess"));
    let mut web = SocketIo::connect(&backend, &json!({"token": room.participant("bob")})).await;
    web.joins(&room.algebra).await;
    assert_eq!(client.event("agent.entered").await["payload"]["agent_id"], room.agent("web", "bob"));
}

async fn without_a_classroom_only_a_lesson_is_joined(backend: &Backend) {
    let room = backend.classroom();
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    let refresh = client.emit("refresh", &[json!({"token": "x"})]).await;
    assert_eq!(refresh, json!({"status": "ERROR", "message": "not in a classroom"}));
    let unknown = client.emit("nonsense", &[]).await;
    assert_eq!((&unknown["status"], &unknown["message"]), (&json!("ERROR"), &json!("unknown event")));
    let none = client.emit("join_lesson", &[]).await;
    assert_eq!(none, json!({"status": "ERROR", "message": "lesson_id is required"}));
    let nowhere = client.emit("join_lesson", &[json!({"lesson_id": "no-such-lesson"})]).await;
    assert_eq!(nowhere, json!({"status": "ERROR", "message": "lesson not found"}));
    // The failed joins have entered no classroom.
    assert_eq!(backend.live(room).await, Vec::<String>::new());
    client.joins(&room.algebra).await;
    assert_eq!(backend.live(room).await.len(), 1);
    // From here on the client is in the classroom.
    let refresh = client.emit("refresh", &[json!({"token": room.participant("alice")})]).await;
    assert_eq!(refresh["status"], "SUCCESS");
    client.joins(&room.biology).await;

    let hub = room.token_with("hub", &json!({"role": "hub"}));
    let mut hub = SocketIo::connect(backend, &json!({"token": hub})).await;
    let ack = hub.emit("join_lesson", &[json!({"lesson_id": room.algebra})]).await;
    assert_eq!(ack["message"], "hub clients cannot join a lesson");
    let listed = room.token_with("listed", &json!({"lesson_ids": [room.biology]}));
    let mut listed = SocketIo::connect(backend, &json!({"token": listed})).await;
    let ack = listed.emit("join_lesson", &[json!({"lesson_id": room.algebra})]).await;
    assert_eq!(ack["message"], "lesson not found");
}

async fn an_event_without_a_callback_hears_of_its_error(backend: &Backend) {
    let room = backend.classroom();
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    client.send(r#"42["join_lesson",{"lesson_id":"no-such-lesson"}]"#).await;
    let error = client.event("request_error").await;
    assert_eq!(error, json!({"event": "join_lesson", "message": "lesson not found"}));
    client.send(&format!(r#"42["join_lesson",{{"lesson_id":"{}"}},"more"]"#, room.algebra)).await;
    client.event("connect_success").await;
    client.send(r#"42["join_lesson",7]"#).await;
    assert_eq!(client.event("request_error").await["message"], "invalid payload");
}

async fn a_class_of_both_dialects_sees_itself_whole(backend: &Backend) {
    let room = backend.classroom();
    let mut plain = backend.participant(room, "plain").await;
    let mut socketio = SocketIo::connect(backend, &json!({"token": room.participant("sio")})).await;
    socketio.joins(&room.algebra).await;
    let success = socketio.event("connect_success").await;
    plain.joins(&room.algebra).await;
    let session = success["session_id"].as_i64().unwrap();
    let entered = plain.client.next_event(crate::common::SOON).await.unwrap();
    assert_eq!(entered.body, agent_event("entered", session, &room.agent("web", "sio")));
    let other = backend.participant(room, "other").await;
    let entered = json!(agent_event("entered", other.session, &other.id));
    assert_eq!(read_to(&mut socketio, &entered).await, entered);
    plain.sees("entered", &other.whom()).await;
    let left = other.leaves().await;
    assert_eq!(socketio.event("agent.left").await, agent_event("left", left.session, &left.id));
    plain.sees("left", &left).await;
    socketio.send("41").await;
    plain.sees("left", &crate::common::Whom { id: room.agent("web", "sio"), session }).await;
}

/// Reads until `agent.entered` with this body comes. An event of an agent that entered a moment before may come first.
async fn read_to(client: &mut SocketIo, wanted: &Value) -> Value {
    loop {
        let event = client.event("agent.entered").await;
        if event == *wanted {
            return event;
        }
    }
}

async fn events_of_services_have_names(backend: &Backend) {
    let room = backend.classroom();
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    client.joins(&room.algebra).await;
    client.event("connect_success").await;
    let named = json!({"id": {"entity_type": "board", "operation": "drawn", "sequence_id": 3}, "payload": {"x": 1}});
    backend.publish(&format!("lesson.{}.board", room.algebra), &named);
    assert_eq!(client.event("board.drawn").await, named);
    // If the body has no id of that form, the subject names the event.
    for body in [json!({"a": 1}), json!({"id": 7}), json!({"id": {"entity_type": "Board", "operation": "x y"}})] {
        backend.publish(&room.subject("note"), &body);
        assert_eq!(client.event("note").await, body);
    }
    // Events with names that the client's library reserves are dropped.
    for reserved in ["disconnect", "connect_error", "newListener", "session_error", "request_error"] {
        backend.publish(&room.subject(reserved), &json!({"reserved": true}));
    }
    backend.publish(&room.subject("note"), &json!({"last": true}));
    assert_eq!(client.event("note").await, json!({"last": true}));
    let label = r#"reason="event_reserved_name""#;
    backend.gateway.wait_for_metric("rollcall_dropped_total", &[label], crate::common::SOON, |n| n >= 5.0).unwrap();
}

async fn a_lesson_is_that_of_payload_or_auth_or_query(backend: &Backend) {
    let room = backend.classroom();
    let claimed = room.token_with("claims", &json!({"lesson_id": room.algebra}));
    let query = format!("&lesson_id={}", room.biology);
    for (query, auth, lesson) in [
        ("", json!({"token": claimed}), &room.algebra),
        (query.as_str(), json!({"token": claimed}), &room.biology),
        (query.as_str(), json!({"token": claimed, "lesson_id": room.algebra}), &room.algebra),
    ] {
        let mut client = SocketIo::open(backend, query).await;
        client.connects(&auth).await;
        assert_eq!(client.emit("join_lesson", &[Value::Null]).await["status"], "SUCCESS");
        client.event("connect_success").await;
        let saved = format!("select lesson_id from agent_session where classroom_id = '{}'", room.id);
        assert_eq!(backend.value(&saved).await, *lesson);
        client.send("41").await;
        backend
            .wait_for_rows(&format!("select count(*) from agent_session where classroom_id = '{}'", room.id), &["0"])
            .await;
    }
}

async fn a_join_moves_to_the_lesson_s_classroom(backend: &Backend) {
    let (from, to) = (backend.classroom(), backend.classroom());
    let user = from.user("alice");
    let mut alice = SocketIo::connect(backend, &json!({"token": from.participant("alice")})).await;
    alice.joins(&from.algebra).await;
    let first = alice.event("connect_success").await;
    let mut left = backend.participant(from, "left").await;
    assert_eq!(alice.event("agent.entered").await["id"]["sequence_id"], left.session);
    let mut entered = backend.participant(to, "entered").await;
    backend.settled(from, [&mut left]).await;
    backend.settled(to, [&mut entered]).await;
    // A failed join changes nothing.
    for lesson in ["no-such-lesson", ""] {
        assert_eq!(alice.emit("join_lesson", &[json!({"lesson_id": lesson})]).await["status"], "ERROR");
    }
    backend.nothing_came(from, [&mut left]).await;
    // The fences of the two checks before.
    alice.event("note").await;
    alice.event("note").await;

    alice.joins(&to.biology).await;
    let second = alice.event("connect_success").await;
    assert_eq!((&second["sid"], &second["agent_id"]), (&first["sid"], &first["agent_id"]));
    let whom = |success: &Value| crate::common::Whom {
        id: from.agent("web", "alice"),
        session: success["session_id"].as_i64().unwrap(),
    };
    entered.sees("entered", &whom(&second)).await;
    left.sees("left", &whom(&first)).await;
    // The client gets the events of the other classroom only.
    backend.publish(&from.subject("note"), &json!({"of": "from"}));
    backend.publish(&format!("lesson.{}.note", from.algebra), &json!({"of": "from"}));
    backend.publish(&format!("lesson.{}.note", to.biology), &json!({"of": "to"}));
    assert_eq!(alice.event("note").await, json!({"of": "to"}));
    let lesson = format!("select lesson_id from agent_session where user_id = '{user}'");
    assert_eq!(backend.rows(&lesson).await, std::slice::from_ref(&to.biology));
    let mut keys = backend.keys().await;
    let students = |lesson: &str| student_hash(lesson);
    crate::common::expect_field(&mut keys, &students(&from.algebra), &user, None).await;
    crate::common::expect_field(&mut keys, &students(&to.biology), &user, second["sid"].as_str()).await;
    // The client moves back to the first classroom.
    alice.joins(&from.biology).await;
    alice.event("connect_success").await;
    entered.sees("left", &whom(&second)).await;
}

async fn guests_join_without_entering(backend: &Backend) {
    let backend = backend.another(|options| options.clone().env("ROLLCALL_GUESTS", "true"));
    let room = backend.classroom();
    let mut guest = SocketIo::connect(&backend, &json!({})).await;
    guest.joins(&room.algebra).await;
    assert_eq!(backend.live(room).await, Vec::<String>::new());
    backend.publish(&format!("lesson.{}.board", room.algebra), &json!({"lesson": 1}));
    assert_eq!(guest.event("board").await, json!({"lesson": 1}));

    let mut known = SocketIo::connect(&backend, &json!({})).await;
    let payload = json!({"lesson_id": room.algebra, "access_token": room.participant("alice")});
    assert_eq!(known.emit("join_lesson", &[payload]).await["status"], "SUCCESS");
    assert_eq!(known.event("connect_success").await["agent_id"], room.agent("web", "alice"));
    assert_eq!(backend.live(room).await.len(), 1);
    // A guest that has joined a lesson may still enter.
    let payload = json!({"access_token": room.participant("bob"), "lesson_id": room.algebra});
    assert_eq!(guest.emit("join_lesson", &[payload]).await["status"], "SUCCESS");
    assert_eq!(guest.event("connect_success").await["agent_id"], room.agent("web", "bob"));
}

async fn binary_data_is_no_payload(backend: &Backend) {
    let room = backend.classroom();
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    client.send(r#"451-7["join_lesson",{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(&[1, 2, 3]).await;
    let invalid = json!({"status": "ERROR", "message": "invalid payload"});
    assert_eq!(client.next().await, Packet::Ack(7, vec![invalid]));
    // An acknowledgement without a request is ignored, with its attachments.
    client.send(r#"461-3[{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(&[1]).await;
    client.send("43[1]").await;
    client.joins(&room.algebra).await;
}
