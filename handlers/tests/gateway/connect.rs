//! PROTOCOL 2, connect_request: the order of entering and seeing events, and which requests are refused.

use crate::common::{Agent, Backend, Classroom, SOON, on_both_kinds, refused, session_error, student_hash};
use rollcall_loadtest::client::Closing;
use rollcall_loadtest::{GatewayOptions, token};
use serde_json::{Value, json};

on_both_kinds!(
    an_agent_never_gets_its_own_entered,
    of_two_agents_that_enter_at_once_at_least_one_sees_the_other,
    an_agent_gets_no_event_from_before_its_connect,
    a_first_message_of_another_type_is_unsupported,
    an_unreadable_first_message_is_serialization_failed,
    an_invalid_token_is_unauthenticated,
    a_classroom_outside_of_the_claim_is_denied,
    a_client_that_is_silent_for_10_s_is_auth_timed_out,
    the_same_agent_again_replaces_the_first,
    guests_connect_only_where_they_are_allowed,
);

async fn an_agent_never_gets_its_own_entered(backend: &Backend) {
    let room = backend.classroom();
    let mut bob = backend.participant(room, "bob").await;
    backend.settled(room, [&mut bob]).await;
    let mut alice = backend.participant(room, "alice").await;
    // Once bob has seen the event, it would have reached alice, too.
    bob.sees("entered", &alice.whom()).await;
    backend.nothing_came(room, [&mut alice, &mut bob]).await;
    // The same user under another label is another agent, so alice sees its entered.
    let tablet = backend.enters_as(room, &room.participant("alice"), "tablet").await;
    alice.sees("entered", &tablet.whom()).await;
    assert_ne!(alice.session, tablet.session);
}

async fn of_two_agents_that_enter_at_once_at_least_one_sees_the_other(backend: &Backend) {
    let room = backend.classroom();
    let mut witness = backend.participant(room, "witness").await;
    backend.settled(room, [&mut witness]).await;
    for round in 0..10 {
        let names = [format!("a{round}"), format!("b{round}")];
        let (mut one, mut two) =
            futures_util::join!(backend.participant(room, &names[0]), backend.participant(room, &names[1]));
        // Once the witness has seen both, each event that the two could see comes before the fence.
        let mut seen = [witness.client.next_event(SOON).await.unwrap(), witness.client.next_event(SOON).await.unwrap()];
        seen.sort_by_key(|event| event.sequence_id());
        let mut sessions = [one.session, two.session];
        sessions.sort_unstable();
        assert_eq!(seen.map(|event| event.sequence_id().unwrap()), sessions);
        let fence = backend.fence(room);
        let one_sees = sees_before(&mut one, &fence, two.session).await;
        let two_sees = sees_before(&mut two, &fence, one.session).await;
        assert!(one_sees || two_sees, "in round {round} nobody saw anybody");
        fence.is_next_for(&mut witness).await;
        one.leaves().await;
        two.leaves().await;
        until_all_left(backend, room).await;
        backend.settled(room, [&mut witness]).await;
    }
}

/// Returns whether agent.entered of the other session comes before a fence. Any other event fails the test.
async fn sees_before(agent: &mut Agent, fence: &crate::common::Fence, other: i64) -> bool {
    let seen = fence.read_to(agent).await;
    assert!(seen.len() <= 1, "{seen:?}");
    for event in &seen {
        assert_eq!((event.label(), event.sequence_id()), (Some("entered"), Some(other)));
    }
    seen.len() == 1
}

/// Waits until only the witness is in the classroom.
async fn until_all_left(backend: &Backend, room: &Classroom) {
    crate::common::until("the leaves", SOON, async || backend.live(room).await, |live| live.len() == 1).await;
}

async fn an_agent_gets_no_event_from_before_its_connect(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    backend.settled(room, [&mut alice]).await;
    // The event is published before bob enters, so bob does not get it.
    let mut bob = backend.participant(room, "bob").await;
    alice.sees("entered", &bob.whom()).await;
    backend.nothing_came(room, [&mut bob, &mut alice]).await;
}

/// Returns a valid connect_request, of which a test changes one part.
fn fine(backend: &Backend) -> Value {
    let room = backend.classroom();
    json!({"type": "connect_request", "payload": room.connect_request(&room.participant("alice"), "web")})
}

async fn a_first_message_of_another_type_is_unsupported(backend: &Backend) {
    for name in ["join_lesson", "nonsense", "refresh", ""] {
        let message = json!({"type": name, "ref": 1, "payload": {}}).to_string();
        session_error(&refused(backend, &message).await, "unsupported_request", 405, 3501);
    }
}

async fn an_unreadable_first_message_is_serialization_failed(backend: &Backend) {
    let fine = fine(backend);
    for text in ["", "{", "null", "[]", "\"connect_request\"", "{}", r#"{"type":7}"#, r#"{"type":"connect_request"}"#] {
        session_error(&refused(backend, text).await, "serialization_failed", 422, 3501);
    }
    let long = "x".repeat(65);
    let uuid = fine["payload"]["classroom_id"].as_str().unwrap();
    let braced = format!("{{{uuid}}}");
    let wrong = [
        ("agent_label", json!("we.b")),
        ("agent_label", json!("")),
        ("agent_label", json!(long)),
        ("agent_label", json!("web*")),
        ("agent_label", json!("we b")),
        ("agent_label", json!(7)),
        ("agent_label", Value::Null),
        ("classroom_id", json!("not-a-uuid")),
        ("classroom_id", json!("*")),
        ("classroom_id", json!(">")),
        ("classroom_id", json!(braced)),
        ("classroom_id", json!(format!("{uuid}\r\n"))),
        ("classroom_id", Value::Null),
        ("token", json!(7)),
        ("resume", json!("yes")),
    ];
    for (field, value) in wrong {
        let mut request = fine.clone();
        request["payload"][field] = value;
        session_error(&refused(backend, &request.to_string()).await, "serialization_failed", 422, 3501);
    }
}

async fn an_invalid_token_is_unauthenticated(backend: &Backend) {
    let room = backend.classroom();
    let good = room.participant("alice");
    let claims = |changes: Value| room.token_with("alice", &changes);
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    // {"alg":"none"}
    let none = format!("eyJhbGciOiJub25lIn0.{body}.");
    let without_expiry = {
        let mut claims = token::claims(&room.user("alice"), "participant");
        claims.as_object_mut().unwrap().remove("exp");
        token::hs256(token::SECRET, &claims)
    };
    let tokens = [
        String::new(),
        "nonsense".to_owned(),
        format!("{head}.{body}"),
        format!("{head}.{}.{signature}", &body[1..]),
        none,
        token::hs256("another secret, of a length that HS256 takes", &token::claims("alice", "participant")),
        claims(json!({"exp": 1_000_000_000})),
        claims(json!({"exp": "never"})),
        claims(json!({"nbf": 4_000_000_000_u64})),
        claims(json!({"sub": "lesson_teacher_42"})),
        claims(json!({"sub": "a b"})),
        claims(json!({"sub": "a".repeat(129)})),
        claims(json!({"sub": "*"})),
        claims(json!({"aud": "no_dns.>"})),
        without_expiry,
    ];
    for token in tokens {
        let request = json!({"type": "connect_request", "payload": room.connect_request(&token, "web")});
        let closing = refused(backend, &request.to_string()).await;
        let mut payload = json!({"type": "unauthenticated", "title": "Unauthenticated", "status": 401});
        if let Some(detail) = closing.error.as_ref().and_then(|error| error["payload"].get("detail")) {
            assert!(detail == "token expired" || detail == "token malformed", "{token}: {detail}");
            payload["detail"] = detail.clone();
        }
        let error = json!({"type": "unrecoverable_session_error", "payload": payload});
        assert_eq!(closing, Closing { error: Some(error), code: Some(3500) }, "{token}");
    }
    // A request without a token, on a gateway that does not allow guests.
    let request = json!({"classroom_id": room.id, "agent_label": "web"});
    let request = json!({"type": "connect_request", "payload": request});
    let closing = refused(backend, &request.to_string()).await;
    session_error(&closing, "unauthenticated", 401, 3500);
    assert_eq!(closing.error.unwrap()["payload"]["detail"], "token missing");

    assert_eq!(backend.live(room).await, [""; 0]);
    assert_eq!(backend.history(room).await, [""; 0]);
}

async fn a_classroom_outside_of_the_claim_is_denied(backend: &Backend) {
    let (room, other) = (backend.classroom(), backend.classroom());
    let token = room.token_with("alice", &json!({"classroom_ids": [room.id]}));
    let request = json!({"type": "connect_request", "payload": other.connect_request(&token, "web")});
    session_error(&refused(backend, &request.to_string()).await, "access_denied", 403, 3507);
    assert_eq!(backend.live(other).await, [""; 0]);
    // The token admits its own classroom.
    let alice = backend.enters(room, &token).await;
    assert_eq!(alice.id, room.agent("web", "alice"));
}

async fn a_client_that_is_silent_for_10_s_is_auth_timed_out(backend: &Backend) {
    let _held = crate::common::measures_time().await;
    let mut client = backend.client().await;
    let upgraded = std::time::Instant::now();
    let closing = client.expect_close(SOON + SOON).await.unwrap();
    session_error(&closing, "auth_timed_out", 422, 3502);
    let waited = upgraded.elapsed().as_secs_f64();
    assert!((8.0..=12.0).contains(&waited), "after {waited} s");
}

async fn the_same_agent_again_replaces_the_first(backend: &Backend) {
    let room = backend.classroom();
    let mut witness = backend.participant(room, "witness").await;
    let mut first = backend.participant(room, "alice").await;
    backend.settled(room, [&mut witness, &mut first]).await;

    let mut second = backend.participant(room, "alice").await;
    assert_eq!((second.session, &second.id), (first.session, &first.id), "the session survives");
    assert_ne!(second.sid, first.sid);
    session_error(&first.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);

    // No agent.left and no second agent.entered come. The row belongs to the second connection, and the history is
    // empty.
    backend.nothing_came(room, [&mut witness, &mut second]).await;
    let sid = format!("select sid from agent_session where id = {}", second.session);
    assert_eq!(backend.value(&sid).await, second.sid);
    assert_eq!(backend.history(room).await, [""; 0]);
    if let Some(stream) = backend.stream().await {
        assert_eq!(stream.messages(&room.subject("agent")).await.len(), 2, "the witness's and one of alice's");
    }
    let gone = second.leaves().await;
    witness.sees("left", &gone).await;
    assert_eq!(backend.history(room).await, [format!("{}|{}|closed", gone.session, gone.id)]);
}

async fn guests_connect_only_where_they_are_allowed(backend: &Backend) {
    let own = backend.another(|options: &GatewayOptions| options.clone().env("ROLLCALL_GUESTS", "true"));
    let room = own.classroom();
    let mut witness = own.participant(room, "witness").await;
    own.settled(room, [&mut witness]).await;
    let mut guest = own.client().await;
    let success = guest.connect_request_with(json!({"classroom_id": room.id, "agent_label": "web"})).await.unwrap();
    let sid = success["sid"].as_str().expect("a sid").to_owned();

    // A guest has no session row and causes no event.
    assert_eq!(own.live(room).await, [format!("{}|{}", witness.session, witness.id)]);
    own.nothing_came(room, [&mut witness]).await;

    // For a guest, join_lesson does the steps of flow 2 that need no user.
    let ack = guest.join_lesson(&room.algebra).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS", "{ack}");
    let mut keys = own.keys().await;
    if let Some(keys) = &mut keys {
        let seats = crate::common::hash([("1", ""), ("2", ""), ("3", "")]);
        assert_eq!(keys.hash(&format!("lesson_seat_{}", room.algebra)).await, seats);
        assert_eq!(keys.hash(&student_hash(&room.algebra)).await.len(), 0);
    }
    let board = json!({"line": 1});
    own.publish(&format!("lesson.{}.board", room.algebra), &board);
    while guest.next_event(SOON).await.unwrap().body != board {}

    // With an access_token, join_lesson does all of flow 2.
    let payload = json!({"lesson_id": room.algebra, "access_token": room.participant("gwen")});
    assert_eq!(guest.request("join_lesson", payload).await.unwrap()["status"], "SUCCESS");
    if let Some(keys) = &mut keys {
        let (user, students) = (room.user("gwen"), student_hash(&room.algebra));
        assert_eq!(keys.field(&students, &user).await, Some(sid));
        assert_eq!(keys.field(&user, "role").await.as_deref(), Some("participant"));
    }
    guest.close().await.unwrap();
    assert_eq!(own.history(room).await, [""; 0]);
}
