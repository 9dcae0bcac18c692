//! PROTOCOL 11, CONNECT: classroom and label from the handshake's query, the roster in the answer, and leave_lesson.

use crate::common::{Backend, Classroom, Packet, SocketIo, on_both_kinds};
use serde_json::{Value, json};

on_both_kinds!(
    a_query_says_where_and_as_what,
    a_handshake_s_token_is_kept_up_to_a_size,
    the_roster_comes_if_auth_asks,
    who_leaves_a_lesson_stays_in_the_classroom,
);

async fn agents(backend: &Backend, room: &Classroom) -> Vec<String> {
    backend.rows(&format!("select agent_id from agent_session where classroom_id = '{}'", room.id)).await
}

async fn a_query_says_where_and_as_what(backend: &Backend) {
    let (room, other) = (backend.classroom(), backend.classroom());
    let query = format!("&classroom_id={}&agent_label=tab&token={}", room.id, room.participant("alice"));
    let mut client = SocketIo::open(backend, &query).await;
    client.connects(&json!({})).await;
    assert_eq!(client.event("connect_success").await["agent_id"], room.agent("tab", "alice"));
    assert_eq!(agents(backend, room).await, [room.agent("tab", "alice")]);
    // The fields of CONNECT count before those of the query.
    let mut client = SocketIo::open(backend, &query).await;
    let auth = json!({"token": room.participant("bob"), "agent_label": "phone", "classroom_id": other.id});
    client.connects(&auth).await;
    assert_eq!(client.event("connect_success").await["agent_id"], room.agent("phone", "bob"));
    assert_eq!(agents(backend, other).await, [room.agent("phone", "bob")]);
}

async fn a_handshake_s_token_is_kept_up_to_a_size(backend: &Backend) {
    for (size, detail) in [(8 << 10, "token malformed"), ((8 << 10) + 1, "token missing")] {
        let mut client = SocketIo::open(backend, &format!("&token={}", "x".repeat(size))).await;
        client.send("40").await;
        let Packet::Refused(error) = client.next().await else { panic!("let in") };
        assert_eq!(error["data"]["detail"], detail);
    }
}

async fn the_roster_comes_if_auth_asks(backend: &Backend) {
    let room = backend.classroom();
    for classroom in [json!(room.id), Value::Null] {
        for roster in [true, false] {
            let auth = json!({"token": room.participant("alice"), "classroom_id": classroom, "roster": roster});
            let mut client = SocketIo::connect(backend, &auth).await;
            client.joins(&room.algebra).await;
            let success = client.event("connect_success").await;
            let agents = success["roster"].as_array().map(|agents| agents[0]["agent_id"].clone());
            assert_eq!(agents, roster.then(|| json!(room.agent("web", "alice"))), "{auth}: {success}");
            client.send("41").await;
            let live = format!("select count(*) from agent_session where classroom_id = '{}'", room.id);
            backend.wait_for_rows(&live, &["0"]).await;
        }
    }
}

async fn who_leaves_a_lesson_stays_in_the_classroom(backend: &Backend) {
    let room = backend.classroom();
    let mut client = SocketIo::connect(backend, &json!({"token": room.participant("alice")})).await;
    client.joins(&room.algebra).await;
    client.event("connect_success").await;
    assert_eq!(client.emit("leave_lesson", &[]).await, json!({"status": "SUCCESS", "data": {}}));
    let again = client.emit("leave_lesson", &[]).await;
    assert_eq!(again, json!({"status": "ERROR", "message": "not in a lesson"}));
    backend.publish(&format!("lesson.{}.note", room.algebra), &json!({"of": "lesson"}));
    backend.publish(&room.subject("note"), &json!({"of": "classroom"}));
    assert_eq!(client.event("note").await, json!({"of": "classroom"}));
    assert_eq!(agents(backend, room).await, [room.agent("web", "alice")]);
}
