//! PROTOCOL 9, roster: who is there, with connect_success and by event.

use crate::common::{Agent, Backend, Classroom, SOON, on_both_kinds};
use futures_util::future::join_all;
use serde_json::{Value, json};

on_both_kinds!(
    the_roster_comes_with_the_success,
    the_roster_is_read_by_event_page_by_page,
    a_page_ends_before_64_kib,
    the_roster_of_a_lesson_follows_its_joins_and_leaves,
    a_faulty_roster_request_is_refused,
    hundreds_enter_with_a_roster_each,
);

impl Agent {
    async fn reads(&mut self, payload: Value) -> Value {
        let mut ack = self.client.request("roster", payload).await.unwrap();
        assert_eq!(ack["status"], "SUCCESS", "{ack}");
        ack["data"].take()
    }
}

fn sessions(agents: &Value) -> Vec<i64> {
    agents.as_array().unwrap().iter().map(|agent| agent["session_id"].as_i64().unwrap()).collect()
}

async fn enters_with_roster(backend: &Backend, room: &Classroom, name: &str) -> (Agent, Value) {
    let mut client = backend.client().await;
    let mut request = room.connect_request(&room.participant(name), "web");
    request["roster"] = json!(true);
    let success = client.connect_request_with(request).await.unwrap();
    (Agent::of(client, &success), success)
}

async fn the_roster_comes_with_the_success(backend: &Backend) {
    let room = backend.classroom();
    let info = json!({"name": "Tess"});
    let mut tess = backend.enters(room, &room.token_with("tess", &json!({"role": "teacher", "info": info}))).await;
    tess.joins(&room.algebra).await;
    let (alice, success) = enters_with_roster(backend, room, "alice").await;
    let expected = json!([
        {
            "session_id": tess.session, "agent_id": tess.id, "role": "teacher", "lesson_id": room.algebra,
            "seat": Classroom::SEAT, "state_n": 0, "info": info,
        },
        {
            "session_id": alice.session, "agent_id": alice.id, "role": "participant", "lesson_id": null, "seat": null,
            "state_n": 0,
        },
    ]);
    assert_eq!((&success["roster"], &success["roster_next"]), (&expected, &Value::Null), "itself included");
    assert_eq!(success["protocol"], 1);
    assert!(success["version"].as_str().is_some_and(|version| !version.is_empty()));
    let asked = |roster: Value| {
        let mut request = room.connect_request(&room.participant("bob"), "web");
        request["roster"] = roster;
        request
    };
    for not_asked in [json!(false), Value::Null] {
        let success = backend.client().await.connect_request_with(asked(not_asked)).await.unwrap();
        assert!(success.get("roster").is_none() && success.get("roster_next").is_none());
    }
}

async fn the_roster_is_read_by_event_page_by_page(backend: &Backend) {
    let room = backend.classroom();
    let names: Vec<_> = (0..7).map(|n| format!("agent{n}")).collect();
    let mut agents = join_all(names.iter().map(|name| backend.participant(room, name))).await;
    agents.sort_by_key(|agent| agent.session);
    let all: Vec<_> = agents.iter().map(|agent| agent.session).collect();
    let reader = &mut agents[3];
    let whole = reader.reads(json!({})).await;
    assert_eq!((sessions(&whole["agents"]), &whole["next"]), (all.clone(), &Value::Null));
    let (mut after, mut read) = (json!(0), Vec::new());
    while !after.is_null() {
        let page = reader.reads(json!({"after": after, "limit": 3})).await;
        let sessions = sessions(&page["agents"]);
        assert!((1..=3).contains(&sessions.len()), "{page}");
        read.extend(sessions);
        after = page["next"].clone();
    }
    assert_eq!(read, all);
    let none = reader.reads(json!({"after": all[6]})).await;
    assert_eq!(none, json!({"agents": [], "next": null}));
}

async fn a_page_ends_before_64_kib(backend: &Backend) {
    let room = backend.classroom();
    let info = json!({"a": "x".repeat(1000)});
    let tokens: Vec<_> = (0..80).map(|n| room.token_with(&format!("agent{n}"), &json!({"info": info}))).collect();
    let mut agents = join_all(tokens.iter().map(|token| backend.enters(room, token))).await;
    let (mut reader, success) = enters_with_roster(backend, room, "reader").await;
    assert!(success["roster"].to_string().len() <= 64 * 1024);
    let mut read = sessions(&success["roster"]);
    let mut after = success["roster_next"].clone();
    while !after.is_null() {
        let page = reader.reads(json!({"after": after})).await;
        assert!(page["agents"].to_string().len() <= 64 * 1024);
        read.extend(sessions(&page["agents"]));
        after = page["next"].clone();
    }
    agents.push(reader);
    let mut all: Vec<_> = agents.iter().map(|agent| agent.session).collect();
    all.sort_unstable();
    assert_eq!(read, all);
}

async fn the_roster_of_a_lesson_follows_its_joins_and_leaves(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut seated = backend.participant(room, "seated").await;
    let asked = json!({"lesson_id": room.algebra});
    assert_eq!(alice.reads(asked.clone()).await, json!({"agents": [], "next": null}));
    alice.joins(&room.algebra).await;
    seated.joins(&room.algebra).await;
    let ack = alice.client.request("set_state", json!({"state": {"hand": true}})).await.unwrap();
    assert_eq!(ack["status"], "SUCCESS");
    let there = alice.reads(asked.clone()).await;
    let seen: Vec<_> =
        there["agents"].as_array().unwrap().iter().map(|agent| (&agent["seat"], agent.get("state"))).collect();
    assert_eq!(seen, [(&Value::Null, Some(&json!({"hand": true}))), (&json!(Classroom::SEAT), None)]);
    seated.joins(&room.biology).await;
    assert_eq!(sessions(&alice.reads(asked.clone()).await["agents"]), [alice.session]);
    alice.client.request("leave_lesson", json!({})).await.unwrap();
    assert_eq!(sessions(&alice.reads(asked).await["agents"]), [0; 0]);
    assert_eq!(sessions(&alice.reads(json!({})).await["agents"]).len(), 2, "both are in the classroom");
}

async fn a_faulty_roster_request_is_refused(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    for payload in [json!({"after": "x"}), json!({"limit": -1}), json!({"limit": 1.5}), json!({"lesson_id": "a.b"})] {
        alice.is_refused_by("roster", payload, "invalid payload").await;
    }
    // A limit out of range is replaced by the nearest one allowed: one agent, or a full page.
    for limit in [0, 4_000_000] {
        assert_eq!(sessions(&alice.reads(json!({"limit": limit})).await["agents"]), [alice.session]);
    }
}

impl Agent {
    async fn is_refused_by(&mut self, event: &str, payload: Value, message: &str) {
        let ack = self.client.request(event, payload.clone()).await.unwrap();
        assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!(message)), "{payload}");
    }
}

/// Hundreds of agents enter and ask for the roster. From the roster and the pushes together, each sees all that
/// entered.
async fn hundreds_enter_with_a_roster_each(backend: &Backend) {
    let room = backend.classroom();
    let names: Vec<_> = (0..200).map(|n| format!("agent{n}")).collect();
    let entered = join_all(names.iter().map(|name| enters_with_roster(backend, room, name))).await;
    let mut all: Vec<_> = entered.iter().map(|(agent, _)| agent.session).collect();
    all.sort_unstable();
    for (mut agent, success) in entered {
        assert_eq!(success["roster_next"], Value::Null);
        let mut view = sessions(&success["roster"]);
        assert!(view.contains(&agent.session), "itself included");
        view.sort_unstable();
        while view != all {
            let event = agent.client.next_event(SOON).await.unwrap();
            assert_eq!(event.label(), Some("entered"));
            view.extend(event.sequence_id());
            view.sort_unstable();
            view.dedup();
        }
    }
}

/// Events that come while the roster is read are sent after it. The roster's query waits for a lock that the test
/// holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_push_overtakes_the_roster() {
    let backend = Backend::real();
    for resumes in [false, true] {
        let room = backend.classroom();
        let mut bob = backend.participant(room, "bob").await;
        let mut request = room.connect_request(&room.participant("alice"), "web");
        if resumes {
            request["resume"] = json!({});
        }
        let mut client = backend.client().await;
        let success = client.connect_request_with(request).await.unwrap();
        let mut alice = Agent::of(client, &success);
        alice.joins(&room.algebra).await;
        backend.settled(room, [&mut bob, &mut alice]).await;

        let url = &backend.servers().unwrap().postgres;
        let (mut postgres, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let lock = postgres.transaction().await.unwrap();
        lock.batch_execute("lock table agent_session in access exclusive mode").await.unwrap();
        alice.client.send(&json!({"type": "roster", "ref": 1, "payload": {}})).await.unwrap();
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%lateral%'";
        crate::common::until("the query", SOON, async || backend.value(waiting).await, |count| count == "1").await;
        let fences = [backend.fence(room), backend.fence_on(&format!("lesson.{}.board", room.algebra))];
        fences[0].is_next_for(&mut bob).await;
        lock.rollback().await.unwrap();

        let first = alice.client.next_message(SOON).await.unwrap();
        assert_eq!((&first["type"], &first["status"]), (&json!("ack"), &json!("SUCCESS")), "resumes: {resumes}");
        assert_eq!(sessions(&first["data"]["agents"]), [bob.session, alice.session]);
        for fence in &fences {
            fence.is_next_for(&mut alice).await;
        }
        backend.nothing_came(room, [&mut alice, &mut bob]).await;
    }
}
