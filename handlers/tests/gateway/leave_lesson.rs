//! PROTOCOL 2, leave_lesson: a client leaves the lesson and stays in the classroom.

use crate::common::{Backend, SOON, expect_field, on_both_kinds, student_hash};
use rollcall_loadtest::GatewayOptions;
use serde_json::{Value, json};

on_both_kinds!(
    room_row_and_field_are_left,
    who_is_in_no_lesson_cannot_leave_one,
    the_same_lesson_is_joined_again,
    the_field_goes_to_the_users_other_connection,
    a_guest_leaves_too,
);

async fn leaves(client: &mut rollcall_loadtest::Client) {
    let ack = client.request("leave_lesson", json!({})).await.unwrap();
    assert_eq!((&ack["status"], &ack["data"]), (&json!("SUCCESS"), &json!({})), "{ack}");
}

async fn room_row_and_field_are_left(backend: &Backend) {
    let room = backend.classroom();
    let mut keys = backend.keys().await;
    let mut seated = backend.participant(room, "seated").await;
    seated.joins(&room.algebra).await;
    let user = room.user("seated");
    expect_field(&mut keys, &student_hash(&room.algebra), &user, Some(&seated.sid)).await;
    leaves(&mut seated.client).await;
    // Once the success has come, the row, the keys and the room no longer have the agent in the lesson.
    if let Some(keys) = &mut keys {
        assert_eq!(keys.field(&student_hash(&room.algebra), &user).await, None);
        assert!(keys.field(&user, "sid").await.is_some(), "the user's own key stays");
    }
    let row = format!("select lesson_id, seat from agent_session where id = {}", seated.session);
    assert_eq!(backend.rows(&row).await, ["|"]);
    backend.fence_on(&format!("lesson.{}.board", room.algebra));
    backend.nothing_came(room, [&mut seated]).await;
    let gone = seated.leaves().await;
    let history = format!("select lesson_id from agent_session_history where id = {}", gone.session);
    backend.wait_for_rows(&history, &[""]).await;
}

async fn who_is_in_no_lesson_cannot_leave_one(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    for _ in 0..2 {
        let ack = alice.client.request("leave_lesson", json!({})).await.unwrap();
        assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("not in a lesson")));
        alice.joins(&room.algebra).await;
        leaves(&mut alice.client).await;
    }
}

async fn the_same_lesson_is_joined_again(backend: &Backend) {
    let room = backend.classroom();
    let mut keys = backend.keys().await;
    let mut alice = backend.participant(room, "alice").await;
    for _ in 0..5 {
        alice.joins(&room.algebra).await;
        leaves(&mut alice.client).await;
    }
    alice.joins(&room.algebra).await;
    let fence = backend.fence_on(&format!("lesson.{}.board", room.algebra));
    fence.is_next_for(&mut alice).await;
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("alice"), Some(&alice.sid)).await;
    alice.leaves().await;
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("alice"), None).await;
}

async fn the_field_goes_to_the_users_other_connection(backend: &Backend) {
    let room = backend.classroom();
    let mut keys = backend.keys().await;
    let mut web = backend.participant(room, "alice").await;
    let mut tablet = backend.enters_as(room, &room.participant("alice"), "tablet").await;
    web.joins(&room.algebra).await;
    tablet.joins(&room.algebra).await;
    let user = room.user("alice");
    expect_field(&mut keys, &student_hash(&room.algebra), &user, Some(&tablet.sid)).await;
    leaves(&mut tablet.client).await;
    expect_field(&mut keys, &student_hash(&room.algebra), &user, Some(&web.sid)).await;
    leaves(&mut web.client).await;
    expect_field(&mut keys, &student_hash(&room.algebra), &user, None).await;
}

async fn a_guest_leaves_too(backend: &Backend) {
    let own = backend.another(|options: &GatewayOptions| options.clone().env("ROLLCALL_GUESTS", "true"));
    let room = own.classroom();
    let mut keys = own.keys().await;
    let mut guest = own.client().await;
    guest.connect_request_with(json!({"classroom_id": room.id, "agent_label": "web"})).await.unwrap();
    let payload = json!({"lesson_id": room.algebra, "access_token": room.participant("gwen")});
    assert_eq!(guest.request("join_lesson", payload).await.unwrap()["status"], "SUCCESS");
    leaves(&mut guest).await;
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("gwen"), None).await;
    let board = json!({"line": 1});
    own.publish(&format!("lesson.{}.board", room.algebra), &board);
    assert_eq!(guest.join_lesson(&room.biology).await.unwrap()["status"], "SUCCESS");
    own.publish(&format!("lesson.{}.board", room.biology), &json!({"line": 2}));
    let next = guest.next_event(SOON).await.unwrap();
    assert_eq!(next.body.get("line"), Some(&Value::from(2)), "nothing of the lesson that was left");
}
