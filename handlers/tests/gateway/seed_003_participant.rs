//! Seed 003, flow 2: a Participant joins a lesson. The arrows are numbered in the diagram's order.

use std::collections::BTreeMap;

use crate::common::{Agent, Backend, Classroom, Keys, Mixpanel, SOON, hash, next_text, on_both_kinds, student_hash};
use futures_util::future::join_all;
use rollcall_loadtest::GatewayOptions;
use serde_json::json;

on_both_kinds!(
    the_diagram,
    without_a_seat_there_is_none_in_the_session,
    a_hundred_who_join_at_once_make_one_seat_map,
    the_latest_live_join_holds_the_field,
    a_field_goes_to_no_connection_of_another_role,
    a_key_that_was_there_before_means_reconnect,
);

/// Returns the lesson and the seat in the session's row.
async fn saved(backend: &Backend, session: i64) -> String {
    backend.value(&format!("select lesson_id, seat from agent_session where id = {session}")).await
}

pub(crate) async fn the_diagram(backend: &Backend) {
    let room = backend.classroom();
    let (lesson, client_id) = (&room.algebra, room.user("seated"));
    let mut participant = backend.participant(room, "seated").await;
    let mut bystander = backend.participant(room, "bob").await;
    backend.settled(room, [&mut participant, &mut bystander]).await;

    // 1. A->>B: emit join_lesson
    // 2. B->>D: check_lesson_exists
    // alt if not lesson exists
    //   3. D->>B: not found lesson_id
    //   4. B->>A: return error
    let request = |lesson: &str| json!({"type": "join_lesson", "ref": 1, "payload": {"lesson_id": lesson}});
    participant.client.send(&request("no-such-lesson")).await.unwrap();
    let error = next_text(&mut participant.client, SOON).await;
    assert_eq!(error, r#"{"type":"ack","ref":1,"status":"ERROR","message":"lesson not found"}"#);
    assert_eq!(saved(backend, participant.session).await, "|");

    // 1, 2 again: there is such a lesson.
    participant.client.send(&request(lesson)).await.unwrap();
    let success = next_text(&mut participant.client, SOON).await;

    // 5. B->>B: enter_room
    backend.fence_on(&format!("lesson.{lesson}.board")).is_next_for(&mut participant).await;
    backend.nothing_came(room, [&mut bystander, &mut participant]).await;

    // 6. D->>B: get seat
    // 7. B->>B: get session
    // 8. B->>B: add {'seat':seat} in session
    // 9. B->>B: save session
    assert_eq!(saved(backend, participant.session).await, format!("{lesson}|{}", Classroom::SEAT));

    if let Some(mut keys) = backend.keys().await {
        // 10. R->>B: get lesson_seat_in_redis from [lesson_seat_{lesson_id}]
        // alt if not lesson_seat_* exists
        //   11. R->>B: set {1:"",2:""....} to [lesson_seat_{lesson_id}]
        let seats = format!("lesson_seat_{lesson}");
        assert_eq!(keys.hash(&seats).await, hash([("1", ""), ("2", ""), ("3", "")]));
        keys.expect_full_ttl(&seats).await;

        // alt if access_token is not None: the token of connect_request counts
        //   12. B->>B: get client_id by access_token
        //   13. B->>B: save session {"client_id":str,"role":str}
        //   14. R->>B: get {client_id} key exists
        //   alt if {client_id} key exists
        //     15. B->>B: call mixpanel reconnect (a_key_that_was_there_before_means_reconnect)
        //   16. R->>B: set {"sid":str,"client_id":str,"role":str} to [{client_id}] & TTL 24 hr
        let sid = participant.sid.as_str();
        let own = hash([("sid", sid), ("client_id", &client_id), ("role", "participant")]);
        assert_eq!(keys.hash(&client_id).await, own);
        keys.expect_full_ttl(&client_id).await;

        //   17. R->>B: set {"{client_id}":sid} to [lesson_student_{lesson_id}]
        let students = student_hash(lesson);
        assert_eq!(keys.hash(&students).await, hash([(client_id.as_str(), sid)]));
        keys.expect_full_ttl(&students).await;

        // No key of flow 1 is written.
        assert_eq!(keys.hash(&format!("lesson_teacher_{lesson}")).await, BTreeMap::new());
    }

    // 18. B->>A: return success
    // The seed's object, and beside it in the envelope what was joined (PROTOCOL 2).
    let joined = format!(r#""lesson":{{"lesson_id":"{lesson}","seat":2,"seats":3}}"#);
    assert_eq!(success, format!(r#"{{"type":"ack","ref":1,"status":"SUCCESS","data":{{}},{joined}}}"#));
}

async fn without_a_seat_there_is_none_in_the_session(backend: &Backend) {
    let room = backend.classroom();
    let mut participant = backend.participant(room, "standing").await;
    participant.joins(&room.algebra).await;
    assert_eq!(saved(backend, participant.session).await, format!("{}|", room.algebra));
}

async fn a_hundred_who_join_at_once_make_one_seat_map(backend: &Backend) {
    let room = backend.classroom();
    let seats = format!("lesson_seat_{}", room.algebra);
    let mut agents: Vec<Agent> = join_all((0..100).map(|number| enter(backend, room, number))).await;
    let joins = join_all(agents.iter_mut().map(|agent| agent.joins(&room.algebra)));
    let Some(mut keys) = backend.keys().await else {
        joins.await;
        return;
    };
    // One user takes a seat as soon as there is one, while others still join. A later join must not free the seat.
    let (_, ()) = futures_util::future::join(joins, take_seat(&mut keys, &seats)).await;
    assert_eq!(keys.hash(&seats).await, hash([("1", "taken"), ("2", ""), ("3", "")]));
    let students = keys.hash(&student_hash(&room.algebra)).await;
    let sids = agents.iter().enumerate().map(|(number, agent)| (room.user(&number.to_string()), agent.sid.clone()));
    assert_eq!(students, sids.collect::<BTreeMap<_, _>>());
}

async fn enter(backend: &Backend, room: &Classroom, number: usize) -> Agent {
    backend.participant(room, &number.to_string()).await
}

async fn take_seat(keys: &mut Keys, seats: &str) {
    crate::common::until(seats, SOON, async || keys.ask::<bool>(&["EXISTS", seats]).await, |there| *there).await;
    let _: i64 = keys.ask(&["HSET", seats, "1", "taken"]).await;
}

pub(crate) async fn the_latest_live_join_holds_the_field(backend: &Backend) {
    let room = backend.classroom();
    let (user, students) = (room.user("alice"), student_hash(&room.algebra));
    let token = room.participant("alice");
    let mut phone = backend.enters_as(room, &token, "phone").await;
    let mut tablet = backend.enters_as(room, &token, "tablet").await;
    phone.joins(&room.algebra).await;
    tablet.joins(&room.algebra).await;
    let mut keys = backend.keys().await;
    crate::common::expect_field(&mut keys, &students, &user, Some(&tablet.sid)).await;
    tablet.joins(&room.biology).await;
    crate::common::expect_field(&mut keys, &students, &user, Some(&phone.sid)).await;
    tablet.joins(&room.algebra).await;
    crate::common::expect_field(&mut keys, &students, &user, Some(&tablet.sid)).await;
    tablet.leaves().await;
    crate::common::expect_field(&mut keys, &students, &user, Some(&phone.sid)).await;
    phone.leaves().await;
    crate::common::expect_field(&mut keys, &students, &user, None).await;
    if let Some(keys) = &mut keys {
        // A disconnect does not remove the key that says that the user was here.
        assert_eq!(keys.field(&user, "client_id").await, Some(user.clone()));
    }
}

async fn a_field_goes_to_no_connection_of_another_role(backend: &Backend) {
    let room = backend.classroom();
    let user = room.user("alice");
    let [students, teachers] = ["student", "teacher"].map(|role| format!("lesson_{role}_{}", room.algebra));
    let mut phone = backend.enters_as(room, &room.participant("alice"), "phone").await;
    let mut board = backend.enters_as(room, &room.teacher("alice"), "board").await;
    phone.joins(&room.algebra).await;
    board.joins(&room.algebra).await;
    board.leaves().await;
    let mut keys = backend.keys().await;
    crate::common::expect_field(&mut keys, &teachers, &user, None).await;
    crate::common::expect_field(&mut keys, &students, &user, Some(&phone.sid)).await;
    // The participant joins again, with a token of the other role.
    let again = json!({"lesson_id": room.algebra, "access_token": room.teacher("alice")});
    assert_eq!(phone.client.request("join_lesson", again).await.unwrap()["status"], "SUCCESS");
    crate::common::expect_field(&mut keys, &students, &user, None).await;
    crate::common::expect_field(&mut keys, &teachers, &user, Some(&phone.sid)).await;
    phone.leaves().await;
    crate::common::expect_field(&mut keys, &teachers, &user, None).await;
}

async fn a_key_that_was_there_before_means_reconnect(backend: &Backend) {
    let mixpanel = Mixpanel::start();
    let tracked = |options: &GatewayOptions| {
        let options = options.clone().env("ROLLCALL_MIXPANEL_TOKEN", "project-token");
        options.env("ROLLCALL_MIXPANEL_URL", mixpanel.url())
    };
    let own = backend.another(tracked);
    let room = own.classroom();
    let client_id = room.user("alice");

    // At the first join there is no such key, so there is no call. A teacher's join makes none either, because flow 1
    // has no such step.
    let mut alice = own.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    alice.leaves().await;
    for _ in 0..2 {
        let mut tess = own.teacher(room, "tess").await;
        tess.joins(&room.algebra).await;
        tess.leaves().await;
    }

    // 14. R->>B: get {client_id} key exists
    let mut again = own.participant(room, "alice").await;
    again.joins(&room.algebra).await;
    // 15. B->>B: call mixpanel reconnect
    let call = mixpanel.next();
    assert!(call.request_line.starts_with("POST /track"), "{call:?}");
    let [event] = &call.events[..] else { panic!("one event: {call:?}") };
    assert_eq!(event["event"], "reconnect", "{event}");
    assert_eq!(event["properties"]["token"], "project-token", "{event}");
    assert_eq!(event["properties"]["distinct_id"], client_id, "{event}");
    assert!(mixpanel.rest().is_empty(), "called once");
}
