//! PROTOCOL 7, HTTP on the admin address.

use crate::common::{Backend, SOON, on_both_kinds, until};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

on_both_kinds!(
    health_and_readiness,
    agents_of_a_classroom_are_listed,
    agents_are_listed_page_by_page,
    a_faulty_listing_request_is_refused,
    agents_are_counted,
    a_faulty_count_request_is_refused,
    only_a_valid_publication_is_accepted,
    an_unknown_path_is_not_found,
    the_metrics_are_there,
);

async fn health_and_readiness(backend: &Backend) {
    assert_eq!(backend.gateway.get("/healthz").unwrap().0, 200);
    let (status, body) = backend.gateway.get("/readyz").unwrap();
    assert_eq!(status, 200, "{body}");
    let sql = if backend.is_embedded() { "sqlite" } else { "postgres" };
    assert!(body.to_lowercase().contains(sql), "it names every backend: {body}");
}

fn get(backend: &Backend, path: &str) -> Value {
    let (status, body) = backend.gateway.get(path).unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

async fn agents_of_a_classroom_are_listed(backend: &Backend) {
    let room = backend.classroom();
    let path = format!("/api/v1/classrooms/{}/agents", room.id);
    assert_eq!(get(backend, &path), json!([]));
    let alice = backend.participant(room, "alice").await;
    let tess = backend.teacher(room, "tess").await;
    let (status, body) = backend.gateway.get(&path).unwrap();
    let entry = |agent: &crate::common::Agent, role: &str| {
        let (session, id) = (agent.session, &agent.id);
        let ids = format!(r#""id":{session},"sequence_id":{session},"session_id":{session},"agent_id":"{id}""#);
        format!(r#"{{{ids},"role":"{role}","lesson_id":null,"seat":null,"state_n":0}}"#)
    };
    assert_eq!((status, body), (200, format!("[{},{}]", entry(&alice, "participant"), entry(&tess, "teacher"))));
    alice.leaves().await;
    crate::common::until(
        "the listing",
        crate::common::SOON,
        async || get(backend, &path),
        |agents| agents.as_array().unwrap().iter().map(|agent| &agent["id"]).eq([&json!(tess.session)]),
    )
    .await;
}

async fn agents_are_listed_page_by_page(backend: &Backend) {
    let room = backend.classroom();
    let names: Vec<_> = (0..7).map(|number| format!("agent{number}")).collect();
    let agents = join_all(names.iter().map(|name| backend.participant(room, name))).await;
    let mut ids: Vec<_> = agents.iter().map(|agent| agent.session).collect();
    ids.sort_unstable();
    let page = |after: i64, limit: usize| -> Vec<i64> {
        let path = format!("/api/v1/classrooms/{}/agents?sequence_id={after}&limit={limit}", room.id);
        let agents = get(backend, &path);
        agents.as_array().unwrap().iter().map(|agent| agent["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(page(0, 1000), ids);
    assert_eq!(page(0, 3), ids[..3]);
    assert_eq!(page(ids[2], 3), ids[3..6]);
    assert_eq!(page(ids[5], 3), ids[6..]);
    assert_eq!(page(ids[6], 3), [0; 0]);
    assert_eq!(page(ids[6] - 1, 1000), ids[6..], "ids above, not from");
}

fn refused(answer: std::io::Result<(u16, String)>) -> bool {
    let (status, _) = answer.unwrap();
    (400..500).contains(&status)
}

async fn a_faulty_listing_request_is_refused(backend: &Backend) {
    let id = &backend.classroom().id;
    for path in [
        "/api/v1/classrooms/not-a-uuid/agents".to_owned(),
        "/api/v1/classrooms//agents".to_owned(),
        "/api/v1/classrooms/%27%20OR%201=1/agents".to_owned(),
        format!("/api/v1/classrooms/{id}/agents?sequence_id=x"),
        format!("/api/v1/classrooms/{id}/agents?sequence_id=99999999999999999999"),
        format!("/api/v1/classrooms/{id}/agents?limit=-1"),
        format!("/api/v1/classrooms/{id}/agents?limit=x"),
    ] {
        assert!(refused(backend.gateway.get(&path)), "{path}");
    }
    assert!(refused(backend.gateway.post(&format!("/api/v1/classrooms/{id}/agents"), &json!({}))), "POST");
}

async fn agents_are_counted(backend: &Backend) {
    let (full, empty) = (backend.classroom(), backend.classroom());
    let nobodys = Uuid::new_v4().to_string();
    let _three = join_all(["a", "b", "c"].map(|name| backend.participant(full, name))).await;
    let asked = json!({"classroom_ids": [full.id, empty.id, nobodys]});
    let (status, body) = backend.gateway.post("/api/v1/counters/agent", &asked).unwrap();
    assert_eq!(status, 200, "{body}");
    let counted: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(counted, json!({&full.id: 3, &empty.id: 0, &nobodys: 0}));
    let (status, body) = backend.gateway.post("/api/v1/counters/agent", &json!({"classroom_ids": []})).unwrap();
    assert_eq!((status, body.as_str()), (200, "{}"));
}

async fn a_faulty_count_request_is_refused(backend: &Backend) {
    for body in [json!({}), json!([]), json!({"classroom_ids": ["x"]}), json!({"classroom_ids": "x"}), json!(null)] {
        assert!(refused(backend.gateway.post("/api/v1/counters/agent", &body)), "{body}");
    }
    assert!(refused(backend.gateway.get("/api/v1/counters/agent")), "GET");
}

async fn only_a_valid_publication_is_accepted(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let body = json!({"line": 1});
    for subject in ["", "*", ">", "classroom", "classroom.x.note", "other.x.note", "live.classroom.x.note"]
        .map(str::to_owned)
        .into_iter()
        .chain([
            room.subject("*"),
            room.subject(">"),
            room.subject("no te"),
            room.subject("note.more"),
            room.subject("note\r\nPUB x 0"),
            "lesson.*.board".to_owned(),
        ])
    {
        let asked = json!({"subject": subject, "body": body});
        assert!(refused(backend.gateway.post("/api/v1/publish", &asked)), "{subject}");
    }
    for wrong in [json!({}), json!({"subject": room.subject("note")}), json!({"body": {}}), json!(null)] {
        assert!(refused(backend.gateway.post("/api/v1/publish", &wrong)), "{wrong}");
    }
    // A body that is not an object is refused here or dropped later. No client gets it.
    for wrong in [json!([]), json!("text"), json!(7), json!(null)] {
        let asked = json!({"subject": room.subject("note"), "body": wrong});
        backend.gateway.post("/api/v1/publish", &asked).unwrap();
    }
    backend.nothing_came(room, [&mut alice]).await;
}

async fn an_unknown_path_is_not_found(backend: &Backend) {
    for path in ["/console/nonsense", "/api/v1", "/api/v1/nonsense", "/ws", "/metrics/x"] {
        assert_eq!(backend.gateway.get(path).unwrap().0, 404, "{path}");
    }
    // Requests whose target has no path.
    for head in ["OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1"] {
        let mut stream = TcpStream::connect(backend.gateway.admin()).await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 404 "), "{head}: {said}");
    }
}

async fn the_metrics_are_there(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let of = |name: &str, labels: &[&str]| backend.gateway.metric(&format!("rollcall_{name}"), labels).unwrap();
    for (name, labels) in [
        ("connections", &[][..]),
        ("sessions", &[]),
        ("rooms", &["kind=\"classroom\""]),
        ("rooms", &["kind=\"lesson\""]),
        ("upgrades_total", &["outcome="]),
        ("function_invocations_total", &["function=\"connect\"", "outcome="]),
        ("function_invocations_total", &["function=\"join_lesson\"", "outcome="]),
        ("function_duration_seconds_count", &["function=\"join_lesson\""]),
        ("build_info", &["version="]),
    ] {
        assert!(of(name, labels) >= 1.0, "{name} {labels:?}");
    }
    alice.leaves().await;
    let left = &["function=\"disconnect\"", "outcome=\"success\""];
    until("disconnect has run", SOON, async || of("function_invocations_total", left), |runs| *runs >= 1.0).await;
    let mut alice = backend.participant(room, "alice").await;
    // An unknown event gets no series of its own.
    alice.client.request("made_up", json!({})).await.unwrap();
    assert!(of("function_invocations_total", &["function=\"unknown\""]) >= 1.0);
    assert_eq!(of("function_invocations_total", &["made_up"]), 0.0);
}
