//! The endpoints of PROTOCOL 7, and every refusal.
use rollcall_keys::KeyEntry;
use rollcall_schema::{Seat, UserId};
use rollcall_store::AttendeeRow;
use serde_json::json;

use super::*;

const ALICE: &str = "web.alice.example.org";
const BOB: &str = "web.bob.example.org";

fn agents(classroom: &str, query: &str) -> String {
    format!("/api/v1/classrooms/{classroom}/agents{query}")
}

#[tokio::test]
async fn agents_are_listed_in_the_order_of_their_sessions() {
    let bench = Bench::new().await;
    let ids = bench.enter(ROOM, &[BOB, ALICE]).await;
    bench.enter(OTHER, &[ALICE]).await;
    let (status, all) = bench.get(&agents(ROOM, "")).await;
    let entry = |id: SessionId, agent: &str| {
        json!({
            "id": id, "sequence_id": id, "session_id": id, "agent_id": agent, "role": "participant", "lesson_id": null,
            "seat": null, "state_n": 0,
        })
    };
    let [bob, alice] = [entry(ids[0], BOB), entry(ids[1], ALICE)];
    assert_eq!((status, all), (StatusCode::OK, json!([bob, alice])));
    let after = format!("?sequence_id={}&limit=1000", ids[0]);
    assert_eq!(bench.get(&agents(ROOM, &after)).await.1, json!([alice]));
    assert_eq!(bench.get(&agents(ROOM, "?limit=1")).await.1, json!([bob]));
    assert_eq!(bench.get(&agents(ROOM, "?limit=0")).await.1, json!([]));
    assert_eq!(bench.get(&agents(ROOM, "?limit=99999999")).await.1.as_array().unwrap().len(), 2);
    let nobody = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c003";
    assert_eq!(bench.get(&agents(nobody, "")).await, (StatusCode::OK, json!([])));
}

#[tokio::test]
async fn agents_are_not_listed_for_what_is_no_classroom_or_number() {
    let bench = Bench::new().await;
    for id in ["x", "%27%20OR%201=1", "2b5c0e0c8f7c4b0a9d540a8cf9d1c001", "*", ".."] {
        let (status, body) = bench.get(&agents(id, "")).await;
        assert_eq!((status, &body["detail"]), (StatusCode::BAD_REQUEST, &"the classroom's id must be a UUID".into()));
    }
    for query in ["?limit=many", "?limit=-1", "?sequence_id=99999999999999999999", "?sequence_id=-1"] {
        assert_eq!(bench.get(&agents(ROOM, query)).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn agents_are_counted_with_zeros() {
    let bench = Bench::new().await;
    bench.enter(ROOM, &[ALICE, BOB]).await;
    let body = json!({"classroom_ids": [ROOM, OTHER, ROOM]}).to_string();
    let counted = bench.post("/api/v1/counters/agent", body).await;
    assert_eq!(counted, (StatusCode::OK, json!({ROOM: 2, OTHER: 0})));
    let many: Vec<_> = (0..20_000).map(|_| uuid::Uuid::new_v4()).collect();
    let (status, counted) = bench.post("/api/v1/counters/agent", json!({"classroom_ids": many}).to_string()).await;
    assert_eq!((status, counted.as_object().map(serde_json::Map::len)), (StatusCode::OK, Some(20_000)));
    let nothing = bench.post("/api/v1/counters/agent", r#"{"classroom_ids":[]}"#).await;
    assert_eq!(nothing, (StatusCode::OK, json!({})));
    for wrong in ["", "[]", "{}", r#"{"classroom_ids":["x"]}"#, r#"{"classroom_ids":"x"}"#] {
        assert_eq!(bench.post("/api/v1/counters/agent", wrong).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

/// Duplicate headers and arrays are refused. Of two headers with one name, a node could read the one that lets more
/// clients have the event. Serde would accept an array of the fields' values for the object.
#[tokio::test]
async fn an_array_is_no_object() {
    let bench = Bench::new().await;
    let sessions = bench.enter(ROOM, &[ALICE]).await;
    for (path, body) in [
        ("disconnect", json!([sessions[0], null, null, null])),
        ("disconnect", json!([null, ALICE, null, null])),
        ("lessons/leave", json!([sessions[0]])),
        ("erase", json!(["alice"])),
        ("counters/agent", json!([[ROOM]])),
    ] {
        let (status, answer) = bench.post(&format!("/api/v1/{path}"), body.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}: {answer}");
    }
    let (_, several) = bench.post("/api/v1/publish", r#"[["lesson.a.note",{"n":1}]]"#).await;
    assert_eq!(several["results"][0]["status"], 400, "{several}");
    assert_eq!(bench.get(&agents(ROOM, "")).await.1.as_array().unwrap().len(), 1, "nobody was ended");
}

#[tokio::test]
async fn events_are_read_page_by_page() {
    let bench = Bench::new().await;
    let path = |query: &str| format!("/api/v1/classrooms/{ROOM}/events{query}");
    let (status, empty) = bench.get(&path("")).await;
    assert_eq!((status, &empty["events"], &empty["through"]), (StatusCode::OK, &json!([]), &json!(0)));
    let note = |n: u32| json!({"subject": format!("classroom.{ROOM}.note"), "body": {"n": n}});
    let other = json!({"subject": format!("classroom.{OTHER}.note"), "body": {}});
    let events = json!([note(1), note(2), other, note(3), other]);
    bench.post("/api/v1/publish", events.to_string()).await;
    let timeless = |mut page: Value| {
        for event in page["events"].as_array_mut().unwrap() {
            assert!(event.as_object_mut().unwrap().remove("time").unwrap().as_str().unwrap().ends_with('Z'));
        }
        page
    };
    let page = timeless(bench.get(&path("?limit=2")).await.1);
    let shown = json!([{"offset": 1, "event": {"n": 1}}, {"offset": 2, "event": {"n": 2}}]);
    assert_eq!((&page["events"], &page["through"], &page["more"]), (&shown, &json!(2), &json!(true)));
    let epoch = page["epoch"].as_str().unwrap();
    let rest = timeless(bench.get(&path(&format!("?after=2&epoch={epoch}"))).await.1);
    let shown = json!([{"offset": 4, "event": {"n": 3}}]);
    assert_eq!((&rest["events"], &rest["through"], &rest["more"]), (&shown, &json!(5), &json!(false)));
    for gone in ["?after=6", "?epoch=another", "?after=9223372036854775807"] {
        assert_eq!(bench.get(&path(gone)).await.0, StatusCode::GONE, "{gone}");
    }
    assert_eq!(bench.get(&path("?after=-1")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn live_classrooms_sessions_and_nodes_are_listed() {
    let bench = Bench::new().await;
    let ids = bench.enter(ROOM, &[ALICE, BOB]).await;
    let elsewhere = bench.enter(OTHER, &[ALICE]).await;
    let both = json!([{"classroom_id": ROOM, "agents": 2}, {"classroom_id": OTHER, "agents": 1}]);
    let all = bench.get("/api/v1/classrooms").await;
    assert_eq!(all, (StatusCode::OK, json!({"classrooms": both, "next": null})));
    let (_, first) = bench.get("/api/v1/classrooms?limit=1").await;
    assert_eq!(first, json!({"classrooms": [both[0]], "next": ROOM}));
    let (_, second) = bench.get(&format!("/api/v1/classrooms?limit=1&after={ROOM}")).await;
    assert_eq!(second, json!({"classrooms": [both[1]], "next": OTHER}));
    assert_eq!(bench.get("/api/v1/classrooms?after=x").await.0, StatusCode::BAD_REQUEST);

    let (_, sessions) = bench.get("/api/v1/sessions?user_id=ali%63e").await;
    let sessions = sessions["sessions"].as_array().unwrap();
    let found: Vec<_> = sessions.iter().map(|session| (&session["session_id"], &session["classroom_id"])).collect();
    assert_eq!(found, [(&json!(ids[0]), &json!(ROOM)), (&json!(elsewhere[0]), &json!(OTHER))]);
    assert_eq!((&sessions[0]["agent_id"], &sessions[0]["role"]), (&json!(ALICE), &json!("participant")));
    let (status, body) = bench.get("/api/v1/sessions").await;
    assert!(status == StatusCode::BAD_REQUEST && body["detail"].as_str().unwrap().contains("user_id"), "{body}");

    let (_, nodes) = bench.get("/api/v1/nodes").await;
    let node = &nodes["nodes"][0];
    assert_eq!((&node["label"], &node["alive"], &node["sessions"]), (&json!("test"), &json!(true), &json!(3)));
}

#[tokio::test]
async fn an_erased_user_is_in_no_table_and_in_no_key() {
    let keys = Arc::new(MemoryKeys::new());
    let bench = Bench::with(None, Arc::clone(&keys) as Arc<dyn LessonKeys>).await;
    bench.enter(ROOM, &[ALICE, BOB]).await;
    let lesson = LessonId::parse("a").unwrap();
    for name in ["alice", "bob"] {
        let user = Some((UserId::parse(name).unwrap(), Role::Participant));
        let entry = KeyEntry { lesson: lesson.clone(), seats: 3, sid: Sid::random(), user };
        keys.join(&entry, None).await.unwrap();
    }
    let mut load = bench.store.begin_load().await.unwrap();
    let attendee = |user| AttendeeRow { lesson: lesson.clone(), user: UserId::parse(user).unwrap(), seat: Seat(1) };
    load.attendees(["alice", "bob"].map(attendee).to_vec()).await.unwrap();
    load.commit().await.unwrap();
    let erase = || bench.post("/api/v1/erase", r#"{"user_id":"alice"}"#);
    assert_eq!(erase().await, (StatusCode::OK, json!({"sessions": 1, "history": 1, "attended": 1})));
    assert_eq!(erase().await, (StatusCode::OK, json!({"sessions": 0, "history": 0, "attended": 0})));
    let (students, _) = keys.hash("lesson_student_a").unwrap();
    assert_eq!((students.into_keys().collect::<Vec<_>>(), keys.hash("alice")), (vec!["bob".to_owned()], None));
    let (_, left) = bench.get(&agents(ROOM, "")).await;
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(bench.post("/api/v1/erase", r#"{"user_id":"a b"}"#).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_read_token_reads_only() {
    let mut bench = Bench::with(Some("hunter2"), Arc::new(MemoryKeys::new())).await;
    Arc::get_mut(&mut bench.admin).unwrap().access.read_token = Some(Secret::new("reader"));
    let ask = async |method: &str, path: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(path).header("Authorization", "Bearer reader");
        bench.ask(request.body(Full::new(body.into())).unwrap()).await
    };
    assert_eq!(ask("GET", "/api/v1/classrooms", "").await.0, StatusCode::OK);
    let counted = ask("POST", "/api/v1/counters/agent", r#"{"classroom_ids":[]}"#).await;
    assert_eq!(counted.0, StatusCode::OK);
    for path in ["publish", "disconnect", "lessons/leave", "erase"] {
        let (status, body) = ask("POST", &format!("/api/v1/{path}"), "{}").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(body["detail"].as_str().unwrap().contains("ROLLCALL_ADMIN_TOKEN"), "{body}");
    }
    assert_eq!(ask("POST", "/api/v1/nowhere", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn paths_and_methods_are_told_apart() {
    let bench = Bench::new().await;
    for path in ["/x", "/api", "/api/v1", "/api/v2/publish", "/metrics/", "//metrics", "/api/v1/classrooms/x"] {
        let (status, body) = bench.get(path).await;
        assert_eq!((status, &body["status"]), (StatusCode::NOT_FOUND, &404.into()), "{path}");
    }
    for path in ["/api/v1/publish", "/api/v1/counters/agent"] {
        assert_eq!(bench.get(path).await.0, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz", &agents(ROOM, "")] {
        let reply = router::answer(&bench.admin, Request::post(path).body(Full::default()).unwrap(), None).await;
        assert_eq!(
            (reply.status(), reply.headers()["allow"].as_bytes()),
            (StatusCode::METHOD_NOT_ALLOWED, &b"GET"[..])
        );
    }
}

#[tokio::test]
async fn the_api_asks_for_its_token_and_the_probes_do_not() {
    let bench = Bench::with(Some("hunter2"), Arc::new(MemoryKeys::new())).await;
    let path = agents(ROOM, "");
    let with = |value: &str| Request::get(&path).header("Authorization", value).body(Full::default()).unwrap();
    let (status, body) = bench.get(&path).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(!body.to_string().contains("hunter2"));
    for wrong in ["", "Bearer", "Bearer ", "Bearer hunter", "Bearer hunter22", "Basic hunter2", "hunter2", "Bearér x"]
    {
        assert_eq!(bench.ask(with(wrong)).await.0, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(bench.get("/api/nowhere").await.0, StatusCode::UNAUTHORIZED, "not even what there is");
    assert_eq!(bench.ask(with("Bearer hunter2")).await.0, StatusCode::OK);
    assert_eq!(bench.ask(with("bearer hunter2")).await.0, StatusCode::OK);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(bench.get(path).await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn without_a_token_web_pages_are_kept_out() {
    let bench = Bench::new().await;
    let body = Full::new(json!({"subject": "lesson.a.note", "body": {}}).to_string().into());
    let request = Request::post("/api/v1/publish").header("Origin", "https://evil.example").body(body).unwrap();
    assert_eq!(bench.ask(request).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_page_whose_name_leads_here_reads_nothing() {
    let bench = Bench::new().await;
    let path = format!("/api/v1/classrooms/{ROOM}/agents");
    let named =
        async |host: &str| bench.ask(Request::get(&path).header("Host", host).body(Full::default()).unwrap()).await.0;
    for host in ["evil.example", "evil.example:9090", "evil.example.", "127.0.0.1.evil.example"] {
        assert_eq!(named(host).await, StatusCode::FORBIDDEN, "{host}");
    }
    for host in ["127.0.0.1:9090", "localhost:9090", "localhost", "[::1]:9090", "127.0.0.1"] {
        assert_eq!(named(host).await, StatusCode::OK, "{host}");
    }
    for path in ["/metrics", "/readyz", "/healthz", "/"] {
        let request = Request::get(path).header("Host", "evil.example").body(Full::default()).unwrap();
        let (status, body) = bench.ask(request).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(body["detail"].as_str().unwrap().contains("ROLLCALL_ADMIN_HOSTS"), "{body}");
    }
}
