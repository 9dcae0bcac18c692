//! An operator ends a session that another node has, whatever state that node is in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Agent, Backend, Classroom, SOON, Servers, expect_field, session_error, student_hash};
use rollcall_loadtest::{Client, Gateway, GatewayOptions};

fn two_nodes(lease: &str) -> (Backend, Gateway) {
    let short = |options: GatewayOptions| options.env("ROLLCALL_LEASE", lease);
    let first = Backend::start(Some(Servers::shared()), |options| short(options.clone()));
    let second = Gateway::start(short(first.beside())).unwrap();
    (first, second)
}

async fn enters_on(node: &Gateway, room: &Classroom, name: &str) -> Agent {
    let mut client = Client::connect(node.address()).await.unwrap();
    let success = client.connect_request(&room.participant(name), &room.id, "web").await.unwrap();
    Agent::of(client, &success)
}

/// Ends an agent's session through the first node.
fn kick(first: &Backend, agent: &Agent) {
    let (status, body) = first.gateway.post("/api/v1/disconnect", &json!({"agent_id": agent.id})).unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(&format!("\"session_id\":{}", agent.session)), "{body}");
}

async fn is_kicked(agent: &mut Agent) {
    session_error(&agent.client.expect_close(SOON).await.unwrap(), "kicked", 403, 3508);
}

fn kicked(agent: &Agent) -> String {
    format!("{}|{}|kicked", agent.session, agent.id)
}

#[tokio::test]
async fn a_session_of_another_node_ends_within_a_second() {
    let _held = crate::common::measures_time().await;
    let (first, second) = two_nodes("15s");
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut bob = enters_on(&second, room, "bob").await;
    bob.joins(&room.algebra).await;
    first.settled(room, [&mut witness, &mut bob]).await;
    let asked = Instant::now();
    kick(&first, &bob);
    is_kicked(&mut bob).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "told after {:?}", asked.elapsed());
    witness.sees("left", &bob.whom()).await;
    let mut keys = first.keys().await;
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("bob"), None).await;
    first.wait_for_rows("select count(*) from kick", &["0"]).await;
    first.nothing_came(room, [&mut witness]).await;
    assert_eq!(first.history(room).await, [kicked(&bob)]);
}

#[tokio::test]
async fn a_session_of_a_stopped_node_ends_at_once_and_its_client_is_told_later() {
    let (first, second) = two_nodes("30s");
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut bob = enters_on(&second, room, "bob").await;
    first.settled(room, [&mut witness, &mut bob]).await;
    second.pause().unwrap();
    kick(&first, &bob);
    witness.sees("left", &bob.whom()).await;
    // The agent enters on the node that works, in a new session.
    let mut again = first.participant(room, "bob").await;
    assert!(again.session > bob.session);
    witness.sees("entered", &again.whom()).await;
    second.resume().unwrap();
    is_kicked(&mut bob).await;
    first.nothing_came(room, [&mut witness, &mut again]).await;
    assert_eq!(first.history(room).await, [kicked(&bob)]);
}

#[tokio::test]
async fn a_node_that_lost_its_lease_still_tells_who_was_kicked() {
    let (first, second) = two_nodes("3s");
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut bob = enters_on(&second, room, "bob").await;
    let mut carol = enters_on(&second, room, "carol").await;
    first.settled(room, [&mut witness, &mut bob, &mut carol]).await;
    second.pause().unwrap();
    kick(&first, &bob);
    witness.sees("left", &bob.whom()).await;
    witness.sees("left", &carol.whom()).await;
    first.wait_for_rows("select count(*) from node", &["1"]).await;
    second.resume().unwrap();
    is_kicked(&mut bob).await;
    let closing = carol.client.expect_close(SOON).await.unwrap();
    assert!(closing.code.is_some_and(|code| (3000..3500).contains(&code)), "{closing:?}");
    first.nothing_came(room, [&mut witness]).await;
}

#[tokio::test]
async fn a_session_of_another_node_is_taken_out_of_its_lesson() {
    let (first, second) = two_nodes("15s");
    let room = first.classroom();
    let mut bob = enters_on(&second, room, "bob").await;
    bob.joins(&room.algebra).await;
    let asked = first.gateway.post("/api/v1/lessons/leave", &json!({"session_id": bob.session})).unwrap();
    assert_eq!(asked, (200, json!({"lesson_id": room.algebra}).to_string()));
    first.wait_for_rows(&format!("select lesson_id from agent_session where id = {}", bob.session), &[""]).await;
    first.wait_for_rows("select count(*) from kick", &["0"]).await;
    // The request is answered only after the connection has left the lesson's room.
    bob.client.request("made_up", json!({})).await.unwrap();
    first.settled(room, [&mut bob]).await;
    first.publish(&format!("lesson.{}.board", room.algebra), &json!({}));
    first.nothing_came(room, [&mut bob]).await;
}

/// Agents on two nodes join one lesson after the other, and each is kicked several times meanwhile. Whatever was under
/// way, each session ends once and leaves no field behind.
#[tokio::test]
async fn agents_that_are_kicked_while_they_join_leave_nothing_behind() {
    const AGENTS: usize = 20;
    const ROUNDS: usize = 3;
    let (first, second) = two_nodes("15s");
    let room = first.classroom();
    let wander = async |number: usize| {
        let (node, name) = (if number.is_multiple_of(2) { &first.gateway } else { &second }, format!("agent{number}"));
        for _ in 0..ROUNDS {
            let mut agent = enters_on(node, room, &name).await;
            let mut lessons = [&room.algebra, &room.biology].into_iter().cycle();
            while agent.client.join_lesson(lessons.next().unwrap()).await.is_ok_and(|ack| ack["status"] == "SUCCESS") {}
            is_kicked(&mut agent).await;
        }
    };
    let kick = async {
        let history = format!("select count(*) from agent_session_history where classroom_id = '{}'", room.id);
        let sessions =
            format!("select user_id from agent_session where lesson_id is not null and classroom_id = '{}'", room.id);
        while first.value(&history).await != (AGENTS * ROUNDS).to_string() {
            for user in first.rows(&sessions).await {
                let (status, body) = first.gateway.post("/api/v1/disconnect", &json!({"user_id": user})).unwrap();
                assert_eq!(status, 200, "{body}");
            }
        }
    };
    futures_util::future::join(futures_util::future::join_all((0..AGENTS).map(wander)), kick).await;
    let reasons = "select reason, count(*) from agent_session_history group by reason";
    assert_eq!(first.rows(reasons).await, [format!("kicked|{}", AGENTS * ROUNDS)]);
    assert_eq!(first.live(room).await, [""; 0]);
    let stored = first.stored(&room.subject("agent"), 2 * AGENTS * ROUNDS).await.unwrap();
    let mut published = BTreeMap::<&str, Vec<&str>>::new();
    for message in &stored {
        let (session, operation) = ("Entity-Event-Sequence-Id", "Entity-Event-Operation");
        published.entry(message.header(session)).or_default().push(message.header(operation));
    }
    assert_eq!(published.len(), AGENTS * ROUNDS);
    assert!(published.values().all(|events| *events == ["entered", "left"]), "{published:?}");
    let mut keys = first.keys().await;
    for number in 0..AGENTS {
        for lesson in [&room.algebra, &room.biology] {
            let (students, user) = (student_hash(lesson), room.user(&format!("agent{number}")));
            expect_field(&mut keys, &students, &user, None).await;
        }
    }
    first.wait_for_rows("select count(*) from stale_field", &["0"]).await;
}
