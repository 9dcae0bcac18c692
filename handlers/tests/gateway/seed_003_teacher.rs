//! Seed 003, flow 1: the Teacher App joins a lesson. The diagram numbers its arrows; so do the comments.

use std::collections::BTreeMap;

use crate::common::{Backend, Classroom, SOON, hash, on_both_kinds, student_hash};
use serde_json::json;

on_both_kinds!(the_diagram, a_seat_map_keeps_its_values_and_gets_the_missing_numbers, leaving_takes_its_own_field_only);

/// Returns the lesson and the seat in the session's row.
async fn saved(backend: &Backend, session: i64) -> String {
    backend.value(&format!("select lesson_id, seat from agent_session where id = {session}")).await
}

pub(crate) async fn the_diagram(backend: &Backend) {
    let room = backend.classroom();
    let (lesson, user) = (&room.algebra, room.user("tess"));
    // The user tess has seat 2 in lesson_attendee.
    let mut teacher = backend.teacher(room, "tess").await;
    let mut student = backend.participant(room, "bob").await;
    backend.settled(room, [&mut teacher, &mut student]).await;
    student.joins(&room.biology).await;

    // 1. A->>B: emit join_lesson
    // 2. B->>D: check_lesson_exists
    // alt if not lesson exists
    //   3. D->>B: not found lesson_id
    //   4. B->>A: return error
    let request = |lesson: &str| json!({"type": "join_lesson", "ref": 1, "payload": {"lesson_id": lesson}});
    teacher.client.send(&request("no-such-lesson")).await.unwrap();
    let error = crate::common::next_text(&mut teacher.client, SOON).await;
    assert_eq!(error, r#"{"type":"ack","ref":1,"status":"ERROR","message":"lesson not found"}"#);
    assert_eq!(saved(backend, teacher.session).await, "|");

    // 1, 2 again: there is such a lesson.
    teacher.client.send(&request(lesson)).await.unwrap();
    let success = crate::common::next_text(&mut teacher.client, SOON).await;

    // 5. B->>B: enter_room
    // From now on the events of the lesson come to the teacher, and to no client that did not join the lesson.
    let fence = backend.fence_on(&format!("lesson.{lesson}.board"));
    fence.is_next_for(&mut teacher).await;
    backend.nothing_came(room, [&mut student, &mut teacher]).await;

    // 6. D->>B: get seat
    // 7. B->>B: get session
    // 8. B->>B: add {'seat':seat} in session
    // 9. B->>B: save session
    assert_eq!(saved(backend, teacher.session).await, format!("{lesson}|{}", Classroom::SEAT));

    if let Some(mut keys) = backend.keys().await {
        // 10. R->>B: get lesson_seat_in_redis from [lesson_seat_{lesson_id}]
        // alt if not lesson_seat_* exists
        //   11. R->>B: set {1:"",2:""....} to [lesson_seat_{lesson_id}]
        let seats = format!("lesson_seat_{lesson}");
        assert_eq!(keys.hash(&seats).await, hash([("1", ""), ("2", ""), ("3", "")]));
        keys.expect_full_ttl(&seats).await;

        // 12. R->>B: set {{user_id}:sid} to [lesson_teacher_{lesson_id}] & TTL 24hrs
        let teachers = format!("lesson_teacher_{lesson}");
        assert_eq!(keys.hash(&teachers).await, hash([(user.as_str(), teacher.sid.as_str())]));
        keys.expect_full_ttl(&teachers).await;

        // 13. R->>B: set {"lesson_id": lesson_id} to [{user_id}]
        assert_eq!(keys.hash(&user).await, hash([("lesson_id", lesson)]));
        keys.expect_full_ttl(&user).await;

        // No key of flow 2 is written.
        assert_eq!(keys.hash(&student_hash(lesson)).await, BTreeMap::new());
    }

    // 14. B->>A: return success
    // The seed's object, and beside it in the envelope what was joined (PROTOCOL 2).
    let joined = format!(r#""lesson":{{"lesson_id":"{lesson}","seat":2,"seats":3}}"#);
    assert_eq!(success, format!(r#"{{"type":"ack","ref":1,"status":"SUCCESS","data":{{}},{joined}}}"#));
}

async fn a_seat_map_keeps_its_values_and_gets_the_missing_numbers(backend: &Backend) {
    let room = backend.classroom();
    let Some(mut keys) = backend.keys().await else {
        // The test cannot read this backend's keys, so it only checks that a second join succeeds.
        let mut teacher = backend.teacher(room, "tess").await;
        teacher.joins(&room.algebra).await;
        return teacher.joins(&room.algebra).await;
    };
    let seats = format!("lesson_seat_{}", room.algebra);
    let _: i64 = keys.ask(&["HSET", &seats, "1", "taken"]).await;
    let _: i64 = keys.ask(&["EXPIRE", &seats, "100"]).await;
    let mut teacher = backend.teacher(room, "tess").await;
    teacher.joins(&room.algebra).await;
    assert_eq!(keys.hash(&seats).await, hash([("1", "taken"), ("2", ""), ("3", "")]));
    // Each join renews the seat map's TTL.
    keys.expect_full_ttl(&seats).await;
}

pub(crate) async fn leaving_takes_its_own_field_only(backend: &Backend) {
    let room = backend.classroom();
    let (user, teachers) = (room.user("tess"), format!("lesson_teacher_{}", room.algebra));
    let mut witness = backend.participant(room, "witness").await;
    let mut teacher = backend.teacher(room, "tess").await;
    teacher.joins(&room.algebra).await;

    // The same user under another label: the latest live join holds the field.
    let mut tablet = backend.enters_as(room, &room.teacher("tess"), "tablet").await;
    tablet.joins(&room.algebra).await;
    backend.settled(room, [&mut witness]).await;
    let mut keys = backend.keys().await;
    crate::common::expect_field(&mut keys, &teachers, &user, Some(&tablet.sid)).await;

    // A connection that does not hold the field removes nothing.
    let left = teacher.leaves().await;
    witness.sees("left", &left).await;
    let in_flight = |count| count == 0.0;
    let gateway = &backend.gateway;
    gateway.wait_for_metric("rollcall_function_in_flight", &["disconnect"], SOON, in_flight).unwrap();
    crate::common::expect_field(&mut keys, &teachers, &user, Some(&tablet.sid)).await;

    // The connection that holds the field removes it; [{user_id}] stays until its TTL ends.
    tablet.leaves().await;
    crate::common::expect_field(&mut keys, &teachers, &user, None).await;
    if let Some(keys) = &mut keys {
        assert_eq!(keys.hash(&user).await, hash([("lesson_id", room.algebra.as_str())]));
    }
}
