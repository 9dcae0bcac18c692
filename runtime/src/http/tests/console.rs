//! The requests of the console, and its files.
use rollcall_keys::KeyEntry;
use rollcall_schema::UserId;
use rollcall_store::KickTarget;
use serde_json::json;

use super::*;
use crate::http_client::fixture::soon;

const ALICE: &str = "web.alice.example.org";
const PHONE: &str = "ios.alice.example.org";
const BOB: &str = "web.bob.example.org";

fn ids(body: &Value) -> Vec<i64> {
    body["sessions"].as_array().unwrap().iter().map(|session| session["session_id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn the_files_carry_the_rules_and_the_api_does_not_need_them() {
    let bench = Bench::new().await;
    for (path, kind) in [("/", "text/html; charset=utf-8"), ("/console/main.js", "text/javascript; charset=utf-8")] {
        let request = Request::get(path).body(Full::default()).unwrap();
        let reply = router::answer(&bench.admin, request, None).await;
        let headers = reply.headers();
        assert_eq!((reply.status(), headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind));
        assert!(headers.contains_key("content-security-policy") && headers["cache-control"] == "no-store", "{path}");
    }
    assert_eq!(bench.get("/console/x.js").await.0, StatusCode::NOT_FOUND);
    assert_eq!(bench.post("/", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let me = json!({"version": env!("CARGO_PKG_VERSION"), "changes": true, "demo": false});
    assert_eq!(bench.get("/api/console/me").await, (StatusCode::OK, me));
    assert_eq!(bench.post("/api/console/demo", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_board_tells_all_who_look_and_reads_for_nobody_else() {
    let bench = Bench::new().await;
    let look = async || {
        let request = Request::get("/api/console/now").body(Full::default()).unwrap();
        router::answer(&bench.admin, request, None).await.into_body()
    };
    let (mut first, mut second) = (look().await, look().await);
    let mut told = Vec::new();
    for body in [&mut first, &mut second] {
        let event = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
        told.push(event.clone());
        let event = std::str::from_utf8(&event).unwrap().strip_prefix("data: ").unwrap().trim_end();
        let event: Value = serde_json::from_str(event).unwrap();
        let node = &event["nodes"][0];
        assert_eq!((&node["label"], &node["alive"], &event["problem"]), (&json!("test"), &json!(true), &Value::Null));
        assert_eq!((&node["node_id"], &node["age_ms"]), (&event["node_id"], &json!(0)));
        assert_eq!(node["statistics"]["version"], env!("CARGO_PKG_VERSION"));
        let names: Vec<_> = event["backends"].as_array().unwrap().iter().map(|backend| &backend["name"]).collect();
        assert_eq!(names, ["sqlite", "memory", "memory", "token keys"]);
    }
    // Both clients got the same bytes, or the second client got the bytes of one second later.
    assert!(told[0] == told[1] || told[0].len().abs_diff(told[1].len()) < 100);
}

#[tokio::test]
async fn classrooms_are_found_by_the_beginning_of_their_ids() {
    let bench = Bench::new().await;
    bench.enter(ROOM, &[ALICE]).await;
    bench.enter(OTHER, &[ALICE]).await;
    let found = async |query: &str| {
        let (status, body) = bench.get(&format!("/api/v1/classrooms?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        let rooms = body["classrooms"].as_array().unwrap();
        rooms.iter().map(|room| room["classroom_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("prefix=2b5c0e0c-8f7c").await, [ROOM, OTHER]);
    assert_eq!(found(&format!("prefix=2b5c0e0c8f7c&after={ROOM}")).await, [OTHER]);
    assert_eq!(found(&format!("prefix={OTHER}&after={ROOM}")).await, [OTHER]);
    assert_eq!(found(&format!("prefix={ROOM}&after={OTHER}")).await, [""; 0]);
    assert_eq!(found("prefix=2b5c0e0d").await, [""; 0]);
    assert_eq!(found("prefix=ffffffff-ffff-ffff-ffff-ffffffffffff").await, [""; 0]);
    assert_eq!(bench.get("/api/v1/classrooms?prefix=x").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn sessions_are_found_by_classroom_user_and_agent_and_the_ended_ones_too() {
    let bench = Bench::new().await;
    let here = bench.enter(ROOM, &[ALICE, PHONE, BOB]).await;
    let [alice, phone, bob] = [here[0].0, here[1].0, here[2].0];
    let (_, all) = bench.get(&format!("/api/v1/sessions?classroom_id={ROOM}")).await;
    assert_eq!(ids(&all), [alice, phone, bob]);
    let (_, page) = bench.get(&format!("/api/v1/sessions?classroom_id={ROOM}&after={alice}&limit=1")).await;
    assert_eq!((ids(&page), &page["next"]), (vec![phone], &json!(phone)));
    let (_, one) = bench.get(&format!("/api/v1/sessions?agent_id={PHONE}")).await;
    assert_eq!(ids(&one), [phone]);
    for faulty in ["", "user_id=alice&agent_id=web.alice.example.org", "agent_id=alice", "classroom_id=x"] {
        assert_eq!(bench.get(&format!("/api/v1/sessions?{faulty}")).await.0, StatusCode::BAD_REQUEST, "{faulty}");
    }
    bench.store.kick(bench.lease, &KickTarget::User(UserId::parse("alice").unwrap(), None), 10).await.unwrap();
    let (_, past) = bench.get("/api/v1/history?user_id=alice").await;
    assert_eq!((ids(&past), &past["next"]), (vec![phone, alice], &Value::Null));
    let newest = &past["sessions"][0];
    assert_eq!((&newest["agent_id"], &newest["classroom_id"]), (&json!(PHONE), &json!(ROOM)));
    assert_eq!(newest["reason"], "kicked");
    let (_, older) = bench.get(&format!("/api/v1/history?user_id=alice&before={phone}&limit=1")).await;
    assert_eq!((ids(&older), &older["next"]), (vec![alice], &json!(alice)));
    let (_, agents) = bench.get(&format!("/api/v1/history?agent_id={ALICE}")).await;
    assert_eq!(ids(&agents), [alice]);
    assert_eq!(bench.get("/api/v1/history").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_lessons_seats_are_those_of_the_key_store() {
    let keys = Arc::new(MemoryKeys::new());
    let bench = Bench::with(None, Arc::clone(&keys) as Arc<dyn LessonKeys>).await;
    let seats = async |lesson: &str| bench.get(&format!("/api/v1/lessons/{lesson}/seats")).await;
    let (status, none) = seats("a").await;
    assert_eq!((status, none), (StatusCode::OK, json!({"lesson_id": "a", "classroom_id": ROOM, "seats": {}})));
    let lesson = LessonId::parse("a").unwrap();
    keys.join(&KeyEntry { lesson, seats: 3, sid: Sid::random(), user: None }, None).await.unwrap();
    assert_eq!(seats("a").await.1["seats"], json!({"1": "", "2": "", "3": ""}));
    assert_eq!(seats("unknown").await.0, StatusCode::NOT_FOUND);
    assert_eq!(seats("no%20id").await.0, StatusCode::BAD_REQUEST);
}
