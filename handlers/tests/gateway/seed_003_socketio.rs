//! Seed 003 as it is drawn, by clients that speak Socket.IO: both flows, arrow by arrow.

use std::collections::BTreeMap;

use crate::common::{Backend, Classroom, SocketIo, hash, on_both_kinds, student_hash};
use serde_json::json;

on_both_kinds!(the_teacher_app_s_flow, the_participant_s_flow);

async fn saved(backend: &Backend, user: &str) -> String {
    backend.value(&format!("select lesson_id, seat from agent_session where user_id = '{user}'")).await
}

async fn the_teacher_app_s_flow(backend: &Backend) {
    let room = backend.classroom();
    let (lesson, user) = (&room.algebra, room.user("tess"));
    let mut teacher = SocketIo::open(backend, "").await;
    let sid = teacher.connects(&json!({"token": room.teacher("tess")})).await;

    // 1. emit join_lesson, 2. check_lesson_exists, 3. not found lesson_id, 4. return error
    let error = teacher.emit("join_lesson", &[json!({"lesson_id": "no-such-lesson"})]).await;
    assert_eq!(error, json!({"status": "ERROR", "message": "lesson not found"}));
    // 1, 2 again: there is such a lesson. 14. return success
    teacher.joins(lesson).await;
    teacher.event("connect_success").await;

    // 5. enter_room
    backend.publish(&format!("lesson.{lesson}.board"), &json!({"drawn": 1}));
    assert_eq!(teacher.event("board").await, json!({"drawn": 1}));
    // 6 to 9. get seat, add {'seat':seat} in session, save session
    assert_eq!(saved(backend, &user).await, format!("{lesson}|{}", Classroom::SEAT));
    if let Some(mut keys) = backend.keys().await {
        // 10, 11. lesson_seat_{lesson_id}
        let seats = format!("lesson_seat_{lesson}");
        assert_eq!(keys.hash(&seats).await, hash([("1", ""), ("2", ""), ("3", "")]));
        keys.expect_full_ttl(&seats).await;
        // 12. {{user_id}:sid} to [lesson_teacher_{lesson_id}] & TTL 24hrs: the sid that the client knows
        let teachers = format!("lesson_teacher_{lesson}");
        assert_eq!(keys.hash(&teachers).await, hash([(user.as_str(), sid.as_str())]));
        keys.expect_full_ttl(&teachers).await;
        // 13. {"lesson_id": lesson_id} to [{user_id}]
        assert_eq!(keys.hash(&user).await, hash([("lesson_id", lesson)]));
        assert_eq!(keys.hash(&student_hash(lesson)).await, BTreeMap::new());
    }
}

async fn the_participant_s_flow(backend: &Backend) {
    let room = backend.classroom();
    let (lesson, user) = (&room.algebra, room.user("seated"));
    let mut client = SocketIo::open(backend, &format!("&lesson_id={lesson}")).await;
    let sid = client.connects(&json!({"token": room.participant("seated")})).await;
    // The seed's data is None.
    let ack = client.emit("join_lesson", &[]).await;
    assert_eq!(ack, json!({"status": "SUCCESS", "data": {}}));
    client.event("connect_success").await;
    assert_eq!(saved(backend, &user).await, format!("{lesson}|{}", Classroom::SEAT));
    if let Some(mut keys) = backend.keys().await {
        // set {"sid":str,"client_id":str,"role":str} to [{client_id}] & TTL 24 hr
        let expected = hash([("sid", sid.as_str()), ("client_id", user.as_str()), ("role", "participant")]);
        assert_eq!(keys.hash(&user).await, expected);
        keys.expect_full_ttl(&user).await;
        // set {"{client_id}":sid} to [lesson_student_{lesson_id}]
        let students = student_hash(lesson);
        assert_eq!(keys.hash(&students).await, hash([(user.as_str(), sid.as_str())]));
        keys.expect_full_ttl(&students).await;
    }
    client.send("41").await;
    let mut keys = backend.keys().await;
    crate::common::expect_field(&mut keys, &student_hash(lesson), &user, None).await;
}
