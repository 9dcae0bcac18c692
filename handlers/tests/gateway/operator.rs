//! PROTOCOL 7, Disconnect: an operator ends sessions, or takes them out of their lesson.

use crate::common::{Agent, Backend, Classroom, SOON, expect_field, on_both_kinds, session_error, student_hash};
use serde_json::{Value, json};

on_both_kinds!(
    an_operator_ends_a_session,
    an_operator_ends_an_agents_sessions_in_one_classroom_or_in_all,
    an_agent_whose_connection_broke_is_kicked_too,
    a_faulty_disconnect_ends_nothing,
    a_session_is_taken_out_of_its_lesson,
    a_session_that_waits_for_its_client_is_taken_out_of_its_lesson,
);

/// Requests the end of sessions, and returns the ids of those that ended.
fn disconnect(backend: &Backend, whom: &Value) -> Vec<i64> {
    let (status, body) = backend.gateway.post("/api/v1/disconnect", whom).unwrap();
    assert_eq!(status, 200, "{whom}: {body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["ended"].as_array().unwrap().iter().map(|ended| ended["session_id"].as_i64().unwrap()).collect()
}

async fn is_kicked(agent: &mut Agent) {
    session_error(&agent.client.expect_close(SOON).await.unwrap(), "kicked", 403, 3508);
}

fn kicked(agent: &Agent) -> String {
    format!("{}|{}|kicked", agent.session, agent.id)
}

async fn an_operator_ends_a_session(backend: &Backend) {
    let room = backend.classroom();
    let mut witness = backend.participant(room, "witness").await;
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    backend.settled(room, [&mut witness, &mut alice]).await;
    assert_eq!(disconnect(backend, &json!({"session_id": alice.session})), [alice.session]);
    // The row is in the history before the answer comes.
    assert_eq!(backend.history(room).await, [kicked(&alice)]);
    assert_eq!(backend.live(room).await, [format!("{}|{}", witness.session, witness.id)]);
    is_kicked(&mut alice).await;
    witness.sees("left", &alice.whom()).await;
    let mut keys = backend.keys().await;
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("alice"), None).await;
    if let Some(stored) = backend.stored(&room.subject("agent"), 3).await {
        assert_eq!(stored[2].header("Left-Reason"), "kicked");
    }
    // Neither the end of the connection nor a second request changes anything.
    assert_eq!(disconnect(backend, &json!({"session_id": alice.session})), [0; 0]);
    backend.nothing_came(room, [&mut witness]).await;
    assert_eq!(backend.history(room).await, [kicked(&alice)]);
    let line = format!("whom=\"session {}\" status=200", alice.session);
    let log = backend.gateway.output();
    let audited = log.lines().filter(|logged| logged.contains("rollcall::audit") && logged.contains(&line)).count();
    assert_eq!(audited, 2, "{log}");
    // The token is not revoked, so the agent may enter again. It does not take over the ended session.
    let again = backend.participant(room, "alice").await;
    assert!(again.session > alice.session);
    witness.sees("entered", &again.whom()).await;
}

async fn an_operator_ends_an_agents_sessions_in_one_classroom_or_in_all(backend: &Backend) {
    let [room, other] = [backend.classroom(), backend.classroom()];
    let enters = async |classroom: &Classroom, name: &str, label: &str| {
        backend.enters_as(classroom, &room.participant(name), label).await
    };
    let mut here = enters(room, "alice", "web").await;
    let mut there = enters(other, "alice", "web").await;
    let mut phone = enters(room, "alice", "ios").await;
    let bystander = enters(room, "bob", "web").await;
    let whom = json!({"agent_id": here.id, "classroom_id": room.id});
    assert_eq!(disconnect(backend, &whom), [here.session]);
    is_kicked(&mut here).await;
    let mut ended = disconnect(backend, &json!({"user_id": room.user("alice")}));
    ended.sort_unstable();
    assert_eq!(ended, [there.session, phone.session]);
    is_kicked(&mut there).await;
    is_kicked(&mut phone).await;
    assert_eq!(backend.live(room).await, [format!("{}|{}", bystander.session, bystander.id)]);
}

async fn an_agent_whose_connection_broke_is_kicked_too(backend: &Backend) {
    let backend = backend.another(|options| options.clone().env("ROLLCALL_LEAVE_GRACE", "10m"));
    let room = backend.classroom();
    let mut witness = backend.participant(room, "witness").await;
    let alice = backend.participant(room, "alice").await;
    backend.settled(room, [&mut witness]).await;
    let (whom, history) = (alice.whom(), kicked(&alice));
    drop(alice);
    backend.gateway.wait_for_metric("rollcall_sessions", &[], SOON, |sessions| sessions < 2.0).unwrap();
    assert_eq!(disconnect(&backend, &json!({"agent_id": whom.id})), [whom.session]);
    witness.sees("left", &whom).await;
    let mut again = backend.participant(room, "alice").await;
    assert!(again.session > whom.session, "the session in grace is not resumed");
    witness.sees("entered", &again.whom()).await;
    backend.nothing_came(room, [&mut witness, &mut again]).await;
    assert_eq!(backend.history(room).await, [history]);
}

async fn a_faulty_disconnect_ends_nothing(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    for whom in [
        json!({}),
        json!([]),
        json!({"session_id": "1"}),
        json!({"agent_id": "alice"}),
        json!({"user_id": room.user("alice"), "clasroom_id": room.id}),
        json!({"user_id": room.user("alice"), "session_id": alice.session}),
        json!({"classroom_id": room.id}),
        json!({"session_id": alice.session, "classroom_id": room.id}),
    ] {
        let (status, body) = backend.gateway.post("/api/v1/disconnect", &whom).unwrap();
        assert_eq!(status, 400, "{whom}: {body}");
    }
    assert_eq!(disconnect(backend, &json!({"user_id": room.user("nobody")})), [0; 0]);
    backend.nothing_came(room, [&mut alice]).await;
}

async fn a_session_is_taken_out_of_its_lesson(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let leave = || {
        let (status, body) =
            backend.gateway.post("/api/v1/lessons/leave", &json!({"session_id": alice.session})).unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["lesson_id"].clone()
    };
    assert_eq!(leave(), json!(room.algebra));
    let lesson = format!("select lesson_id, seat from agent_session where id = {}", alice.session);
    backend.wait_for_rows(&lesson, &["|"]).await;
    assert_eq!(leave(), Value::Null);
    let mut keys = backend.keys().await;
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("alice"), None).await;
    // The request is answered only after the connection has left the lesson's room.
    alice.client.request("made_up", json!({})).await.unwrap();
    backend.settled(room, [&mut alice]).await;
    backend.publish(&format!("lesson.{}.board", room.algebra), &json!({}));
    backend.nothing_came(room, [&mut alice]).await;
    alice.joins(&room.algebra).await;
    backend.fence_on(&format!("lesson.{}.board", room.algebra)).is_next_for(&mut alice).await;
}

async fn a_session_that_waits_for_its_client_is_taken_out_of_its_lesson(backend: &Backend) {
    let backend = backend.another(|options| options.clone().env("ROLLCALL_LEAVE_GRACE", "10m"));
    let room = backend.classroom();
    let mut witness = backend.participant(room, "witness").await;
    let mut alice = backend.participant(room, "seated").await;
    alice.joins(&room.algebra).await;
    backend.settled(room, [&mut witness, &mut alice]).await;
    let session = alice.session;
    drop(alice);
    backend.gateway.wait_for_metric("rollcall_sessions", &[], SOON, |sessions| sessions < 2.0).unwrap();
    let mut keys = backend.keys().await;
    let students = student_hash(&room.algebra);
    let asked = backend.gateway.post("/api/v1/lessons/leave", &json!({"session_id": session})).unwrap();
    assert_eq!(asked, (200, json!({"lesson_id": room.algebra}).to_string()));
    backend.wait_for_rows(&format!("select lesson_id, seat from agent_session where id = {session}"), &["|"]).await;
    expect_field(&mut keys, &students, &room.user("seated"), None).await;
    // The client comes back to the same session, and connect_success says in which lesson it is.
    let mut request = room.connect_request(&room.participant("seated"), "web");
    (request["roster"], request["resume"]) = (json!(true), json!({}));
    let mut client = backend.client().await;
    let success = client.connect_request_with(request).await.unwrap();
    let own = success["roster"].as_array().unwrap().iter().find(|agent| agent["session_id"] == session).unwrap();
    assert_eq!((&own["lesson_id"], &own["seat"]), (&Value::Null, &Value::Null), "{success}");
    let mut again = Agent::of(client, &success);
    backend.nothing_came(room, [&mut witness]).await;
    again.joins(&room.algebra).await;
    expect_field(&mut keys, &students, &room.user("seated"), Some(&again.sid)).await;
}
