//! A session whose row is gone, although nothing says that the database has lost commits (PROTOCOL 2, "The view is
//! whole"). The next request of the session, or its end, finds that the row is gone.

use serde_json::json;

use crate::common::{Agent, Backend, Classroom, SOON, expect_field, on_both_kinds, session_error};

on_both_kinds!(a_request_finds_that_its_row_is_gone, the_end_of_a_connection_finds_that_its_row_is_gone);

async fn witness_and_alice<'b>(backend: &'b Backend, room: &'b Classroom) -> (Agent, Agent) {
    let mut witness = backend.participant(room, "witness").await;
    let mut alice = backend.participant(room, "alice").await;
    witness.sees("entered", &alice.whom()).await;
    alice.joins(&room.algebra).await;
    (witness, alice)
}

/// Deletes the agent's row without the gateway.
async fn loses_row(backend: &Backend, agent: &Agent) {
    backend.write(&format!("delete from agent_session where id = {}", agent.session)).await;
}

async fn a_request_finds_that_its_row_is_gone(backend: &Backend) {
    let requests =
        [("join_lesson", json!({})), ("leave_lesson", json!({})), ("set_state", json!({"state": {"hand": true}}))];
    for (event, mut payload) in requests {
        let room = backend.classroom();
        let (mut witness, mut alice) = witness_and_alice(backend, room).await;
        loses_row(backend, &alice).await;
        if event == "join_lesson" {
            payload["lesson_id"] = json!(room.biology);
        }
        alice.client.send(&json!({"type": event, "ref": 1, "payload": payload})).await.unwrap();
        session_error(&alice.client.expect_close(SOON).await.unwrap(), "internal_server_error", 500, 3004);
        witness.sees("left", &alice.whom()).await;
        assert_eq!(backend.history(room).await, [format!("{}|{}|node_lost", alice.session, alice.id)], "{event}");
        for lesson in [&room.algebra, &room.biology] {
            let students = format!("lesson_student_{lesson}");
            expect_field(&mut backend.keys().await, &students, &room.user("alice"), None).await;
        }
        let again = backend.participant(room, "alice").await;
        witness.sees("entered", &again.whom()).await;
    }
}

async fn the_end_of_a_connection_finds_that_its_row_is_gone(backend: &Backend) {
    let room = backend.classroom();
    let (mut witness, alice) = witness_and_alice(backend, room).await;
    loses_row(backend, &alice).await;
    let alice = alice.leaves().await;
    witness.sees("left", &alice).await;
    assert_eq!(backend.history(room).await, [format!("{}|{}|closed", alice.session, alice.id)]);
    expect_field(&mut backend.keys().await, &format!("lesson_student_{}", room.algebra), &room.user("alice"), None)
        .await;
}
