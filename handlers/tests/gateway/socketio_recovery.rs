//! PROTOCOL 11, Recovery: a client that comes back after a break gets the events that it missed, in order and once, on
//! any node.

use crate::common::{Backend, Classroom, Packet, Servers, SocketIo, Whom, expect_field, on_both_kinds, student_hash};
use rollcall_loadtest::{Gateway, GatewayOptions};
use serde_json::{Value, json};

on_both_kinds!(
    it_is_off_by_default_and_for_who_does_not_want_it,
    a_transport_that_is_closed_or_breaks_is_gone_on_with,
    who_was_refused_before_is_gone_on_with,
    an_end_that_is_final_is_not_gone_on_with,
    who_comes_too_late_or_as_another_begins_anew,
);

fn on(options: &GatewayOptions) -> GatewayOptions {
    options.clone().env("ROLLCALL_SOCKETIO_RECOVERY", "true")
}

/// Publishes numbered events to the classroom and the lesson by turns.
fn publishes(backend: &Backend, room: &Classroom, numbers: impl Iterator<Item = u32>) {
    for number in numbers {
        let subject = [room.subject("note"), format!("lesson.{}.note", room.algebra)][number as usize % 2].clone();
        backend.publish(&subject, &json!({"n": number}));
    }
}

/// Expects these numbers in order. Events of presence may come in between, but no event comes twice.
async fn hears(client: &mut SocketIo, numbers: impl Iterator<Item = u32>) {
    for number in numbers {
        loop {
            match client.next().await {
                Packet::Event(name, arguments) if name == "note" => {
                    assert_eq!(arguments[0]["n"], number, "{arguments:?}");
                    assert_eq!(arguments.last().unwrap().as_str(), client.recovery.1.as_deref(), "each has its offset");
                    break;
                }
                Packet::Event(name, _) if name.starts_with("agent.") => {}
                other => panic!("{number} was awaited, not {other:?}"),
            }
        }
    }
}

/// Returns a client in the lesson. It enters the classroom with CONNECT, or by joining the lesson.
async fn joined(backend: &Backend, room: &Classroom, auth: &Value) -> SocketIo {
    let mut client = SocketIo::connect(backend, auth).await;
    client.joins(&room.algebra).await;
    let success = client.event("connect_success").await;
    assert_eq!(success["recovered"], false);
    client
}

fn auths(room: &Classroom) -> [Value; 2] {
    let token = room.participant("alice");
    [json!({"token": token, "classroom_id": room.id}), json!({"token": token, "lesson_id": room.algebra})]
}

/// Expects that the client went on: it is in its lesson, and gets the events that it missed and new ones.
async fn goes_on(backend: &Backend, room: &Classroom, client: &mut SocketIo, missed: std::ops::Range<u32>) -> Value {
    let success = client.event("connect_success").await;
    assert_eq!(success["recovered"], true);
    let next = missed.end;
    hears(client, missed).await;
    publishes(backend, room, next..next + 2);
    hears(client, next..next + 2).await;
    let row = format!("select lesson_id from agent_session where classroom_id = '{}'", room.id);
    assert!(backend.rows(&row).await.contains(&room.algebra));
    success
}

#[tokio::test]
async fn on_another_node_after_the_network_broke_and_after_a_node_was_killed() {
    // The lease is long, so the killed node's sessions still exist when the client comes back.
    let lasting = |options: &GatewayOptions| on(options).env("ROLLCALL_LEASE", "60s");
    let first = Backend::start(Some(Servers::shared()), lasting);
    let mut second = Gateway::start(lasting(&first.beside())).unwrap();
    for enters_at_once in [true, false] {
        let room = first.classroom();
        let auth = auths(room)[usize::from(!enters_at_once)].clone();
        let mut client = joined(&first, room, &auth).await;
        publishes(&first, room, 0..4);
        hears(&mut client, 0..4).await;
        publishes(&first, room, 4..7);
        // The client has read none of these events, and its node has not noticed the break.
        let (mut client, recovered) = client.comes_back(second.address(), "", &auth).await;
        assert!(recovered, "after a break");
        let success = goes_on(&first, room, &mut client, 4..7).await;
        let mut keys = first.keys().await;
        let students = student_hash(&room.algebra);
        expect_field(&mut keys, &students, &room.user("alice"), success["sid"].as_str()).await;
        // The client's node is killed, and the client goes on at the first node.
        second.kill().unwrap();
        publishes(&first, room, 9..12);
        let (mut client, recovered) = client.comes_back(first.gateway.address(), "", &auth).await;
        assert!(recovered, "the session of a dead node");
        let again = goes_on(&first, room, &mut client, 9..12).await;
        assert_eq!(again["session_id"], success["session_id"]);
        assert_ne!(again["sid"], success["sid"]);
        second.restart().unwrap();
    }
}

async fn it_is_off_by_default_and_for_who_does_not_want_it(backend: &Backend) {
    let with = backend.another(on);
    for (backend, query, auth) in
        [(backend, "", json!({})), (&with, "&recovery=false", json!({})), (&with, "", json!({"recovery": false}))]
    {
        let room = backend.classroom();
        let mut client = SocketIo::open(backend, query).await;
        // An app's own values under these names are not a fault.
        let mut own = json!({"token": room.participant("alice"), "classroom_id": room.id, "pid": 7, "offset": [1]});
        own.as_object_mut().unwrap().extend(auth.as_object().unwrap().clone());
        client.connects(&own).await;
        let Packet::Event(_, arguments) = client.next().await else { panic!("connect_success") };
        assert_eq!((client.recovery.0.as_ref(), arguments.len()), (None, 1));
        assert_eq!(arguments[0].get("offset"), None);
        backend.publish(&room.subject("note"), &json!({}));
        assert_eq!(client.next().await, Packet::Event("note".into(), vec![json!({})]));
    }
    let guests = backend.another(|options| on(options).env("ROLLCALL_GUESTS", "true"));
    let guest = SocketIo::connect(&guests, &json!({})).await;
    assert_eq!(guest.recovery.0, None);
}

async fn a_transport_that_is_closed_or_breaks_is_gone_on_with(backend: &Backend) {
    let backend = &backend.another(on);
    for auth in 0..2 {
        let room = backend.classroom();
        let auth = auths(room)[auth].clone();
        let mut client = joined(backend, room, &auth).await;
        publishes(backend, room, 0..2);
        hears(&mut client, 0..2).await;
        let whom =
            |success: &Value| Whom { id: room.agent("web", "alice"), session: success["session_id"].as_i64().unwrap() };
        // A library that gets no ping closes its transport with a close frame, or with a packet of Engine.IO.
        let mut at = 2;
        for closing in ["frame", "packet", "nothing"] {
            match closing {
                "frame" => client.close_frame().await,
                "packet" => client.send("1").await,
                _ => {}
            }
            let ended = format!("select count(*) from agent_session where classroom_id = '{}'", room.id);
            if closing != "nothing" {
                backend.wait_for_rows(&ended, &["0"]).await;
            }
            publishes(backend, room, at..at + 3);
            let (next, recovered) = client.comes_back(backend.gateway.address(), "", &auth).await;
            client = next;
            assert!(recovered, "after {closing}");
            let success = goes_on(backend, room, &mut client, at..at + 3).await;
            assert_eq!(whom(&success).id, success["agent_id"].as_str().unwrap());
            at += 5;
        }
    }
}

async fn who_was_refused_before_is_gone_on_with(backend: &Backend) {
    let backend = &backend.another(on);
    let room = backend.classroom();
    let [auth, _] = auths(room);
    let mut client = SocketIo::open(backend, "").await;
    client.send(r#"40{"token":"expired"}"#).await;
    assert!(matches!(client.next().await, Packet::Refused(_)));
    client.connects(&auth).await;
    client.close_frame().await;
    let live = format!("select count(*) from agent_session where classroom_id = '{}'", room.id);
    backend.wait_for_rows(&live, &["0"]).await;
    let (_, recovered) = client.comes_back(backend.gateway.address(), "", &auth).await;
    assert!(recovered);
}

async fn an_end_that_is_final_is_not_gone_on_with(backend: &Backend) {
    let backend = &backend.another(on);
    for auth in 0..2 {
        for ending in ["disconnect", "disconnect at once", "replaced", "kicked"] {
            let room = backend.classroom();
            let auth = auths(room)[auth].clone();
            let mut client = joined(backend, room, &auth).await;
            let session = format!("select id from agent_session where classroom_id = '{}'", room.id);
            let mut other = None;
            match ending {
                "disconnect" => {
                    client.send("41").await;
                    backend.wait_for_rows(&session, &[]).await;
                }
                "disconnect at once" => client.send("41").await,
                "replaced" => {
                    other = Some(joined(backend, room, &auth).await);
                    assert_eq!(client.event("session_error").await["type"], "replaced");
                }
                _ => {
                    let id: i64 = backend.value(&session).await.parse().unwrap();
                    let (status, _) = backend.gateway.post("/api/v1/disconnect", &json!({"session_id": id})).unwrap();
                    assert_eq!(status, 200);
                }
            }
            publishes(backend, room, 0..1);
            let before = client.recovery.0.clone();
            let (mut client, recovered) = client.comes_back(backend.gateway.address(), "", &auth).await;
            assert!(!recovered, "after {ending}");
            assert!(client.recovery.0.is_some() && client.recovery.0 != before, "another pid");
            if auth.get("classroom_id").is_some() {
                assert_eq!(client.event("connect_success").await["recovered"], false);
            }
            client.joins(&room.algebra).await;
            drop(other);
        }
    }
}

async fn who_comes_too_late_or_as_another_begins_anew(backend: &Backend) {
    let backend = &backend.another(|options| on(options).env("ROLLCALL_SOCKETIO_RECOVERY_WINDOW", "1ms"));
    let room = backend.classroom();
    let [auth, _] = auths(room);
    // While a session exists, its client can go on with it at any time, and no other client can.
    for (other, query) in [
        (json!({"token": room.participant("mallory"), "classroom_id": room.id}), ""),
        (json!({"token": room.participant("alice"), "classroom_id": room.id, "agent_label": "tab"}), ""),
        (json!({"token": room.participant("mallory")}), ""),
        (json!({"token": room.participant("alice"), "classroom_id": backend.classroom().id}), ""),
        (json!({"token": room.participant("alice"), "recovery": false}), ""),
    ] {
        let client = joined(backend, room, &auth).await;
        let (_, recovered) = client.comes_back(backend.gateway.address(), query, &other).await;
        assert!(!recovered, "with {other}");
    }
    let mut client = joined(backend, room, &auth).await;
    client.close_frame().await;
    let live = format!("select count(*) from agent_session where classroom_id = '{}'", room.id);
    backend.wait_for_rows(&live, &["0"]).await;
    let (_, recovered) = client.comes_back(backend.gateway.address(), "", &auth).await;
    assert!(!recovered, "too late");
}
