//! Two nodes on one Postgres, Redis and NATS: agents on one see agents on the other, and a session moves.

use std::time::{Duration, Instant};

use crate::common::failpoint;
use crate::common::{Agent, Backend, Classroom, SOON, Servers, session_error, student_hash, until};
use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::{Client, Gateway, GatewayOptions};
use serde_json::json;

/// The lease is short, so that a dead node is found soon, and long enough for a busy machine.
const LEASE: Duration = Duration::from_secs(3);

fn short(options: GatewayOptions) -> GatewayOptions {
    options.env("ROLLCALL_LEASE", format!("{}s", LEASE.as_secs()))
}

/// Returns a backend, and a second gateway on its servers.
fn two_nodes() -> (Backend, Gateway) {
    let first = Backend::start(Some(Servers::shared()), |options| short(options.clone()));
    let second = Gateway::start(short(first.beside())).unwrap();
    (first, second)
}

/// Lets a participant enter on a node.
pub(crate) async fn enters_on(node: &Gateway, room: &Classroom, name: &str) -> Agent {
    try_to_enter(node, room, name).await.unwrap()
}

async fn try_to_enter(node: &Gateway, room: &Classroom, name: &str) -> Result<Agent, ClientError> {
    let mut client = Client::connect(node.address()).await?;
    let success = client.connect_request(&room.participant(name), &room.id, "web").await?;
    Ok(Agent::of(client, &success))
}

#[tokio::test]
async fn agents_on_one_node_see_agents_on_the_other() {
    let (first, second) = two_nodes();
    let room = first.classroom();
    let mut alice = first.participant(room, "alice").await;
    first.settled(room, [&mut alice]).await;
    let mut bob = enters_on(&second, room, "bob").await;
    alice.sees("entered", &bob.whom()).await;
    alice.joins(&room.algebra).await;
    bob.joins(&room.algebra).await;
    let fence = first.fence_on(&format!("lesson.{}.board", room.algebra));
    fence.is_next_for(&mut alice).await;
    fence.is_next_for(&mut bob).await;
    for node in [&first.gateway, &second] {
        let (_, body) = node.get(&format!("/api/v1/classrooms/{}/agents", room.id)).unwrap();
        let listed: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        let listed: Vec<_> =
            listed.iter().map(|agent| (&agent["id"], &agent["agent_id"], &agent["lesson_id"])).collect();
        let expected = [&alice, &bob].map(|agent| (json!(agent.session), json!(agent.id), json!(room.algebra)));
        assert_eq!(listed, expected.iter().map(|(id, agent, lesson)| (id, agent, lesson)).collect::<Vec<_>>());
    }
    let gone = bob.leaves().await;
    alice.sees("left", &gone).await;
}

#[tokio::test]
async fn a_session_moves_to_another_node_without_leaving() {
    let _held = crate::common::measures_time().await;
    let (first, second) = two_nodes();
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut before = first.participant(room, "alice").await;
    before.joins(&room.algebra).await;
    first.settled(room, [&mut witness, &mut before]).await;
    let mut after = enters_on(&second, room, "alice").await;
    assert_eq!(after.session, before.session);
    let moved = Instant::now();
    session_error(&before.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);
    assert!(moved.elapsed() < Duration::from_secs(1), "told after {:?}", moved.elapsed());
    after.joins(&room.algebra).await;
    first.nothing_came(room, [&mut witness, &mut after]).await;
    assert_eq!(first.history(room).await, [""; 0]);
    // The end of the first connection changed nothing of the second.
    let mut keys = first.keys().await;
    let (students, user) = (student_hash(&room.algebra), room.user("alice"));
    crate::common::expect_field(&mut keys, &students, &user, Some(&after.sid)).await;
}

#[tokio::test]
async fn the_agents_of_a_dead_node_leave_within_its_lease_and_5_s() {
    let _held = crate::common::measures_time().await;
    let (first, mut second) = two_nodes();
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut bob = enters_on(&second, room, "bob").await;
    bob.joins(&room.algebra).await;
    first.settled(room, [&mut witness, &mut bob]).await;
    let died = Instant::now();
    second.kill().unwrap();
    witness.sees("left", &bob.whom()).await;
    assert!(died.elapsed() < LEASE + Duration::from_secs(5), "after {:?}", died.elapsed());
    assert_eq!(first.history(room).await, [format!("{}|{}|node_lost", bob.session, bob.id)]);
    // The dead node's fields are removed with its sessions.
    let mut keys = first.keys().await;
    crate::common::expect_field(&mut keys, &student_hash(&room.algebra), &room.user("bob"), None).await;
    assert_eq!(first.live(room).await, [format!("{}|{}", witness.session, witness.id)]);
}

#[tokio::test]
async fn a_node_that_was_stopped_in_a_join_until_its_sessions_ended_writes_no_key() {
    let first = Backend::start(Some(Servers::shared()), |options| short(options.clone()));
    let patient = short(first.beside()).env("ROLLCALL_HANDLER_TIMEOUT", "60s");
    let second = Gateway::start(failpoint::breakable(&patient)).unwrap();
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut bob = enters_on(&second, room, "bob").await;
    first.settled(room, [&mut witness, &mut bob]).await;
    failpoint::arm(&second, "lesson entered", "SIGSTOP");
    bob.client.send(&json!({"type": "join_lesson", "payload": {"lesson_id": room.algebra}})).await.unwrap();
    failpoint::struck(&second).await;
    witness.sees("left", &bob.whom()).await;
    // The node is killed right after it wrote keys, which nothing else would remove.
    failpoint::arm(&second, "keys written", "SIGKILL");
    second.resume().unwrap();
    session_error(&bob.client.expect_close(SOON).await.unwrap(), "internal_server_error", 500, 3004);
    let mut keys = first.keys().await.unwrap();
    let students = student_hash(&room.algebra);
    assert_eq!(keys.field(&students, &room.user("bob")).await, None);
}

#[tokio::test]
async fn a_node_that_was_stopped_for_longer_than_its_lease_closes_its_sockets() {
    let (first, second) = two_nodes();
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut bob = enters_on(&second, room, "bob").await;
    first.settled(room, [&mut witness, &mut bob]).await;
    second.pause().unwrap();
    witness.sees("left", &bob.whom()).await;
    second.resume().unwrap();
    // The stopped node's clients are told to reconnect, and get a new session.
    let closing = bob.client.expect_close(SOON).await.unwrap();
    assert!(closing.code.is_some_and(|code| (3000..3500).contains(&code)), "{closing:?}");
    first.nothing_came(room, [&mut witness]).await;
    let asking = async || try_to_enter(&second, room, "bob").await;
    let again = until("a new session", SOON, asking, Result::is_ok).await.unwrap();
    assert!(again.session > bob.session);
    witness.sees("entered", &again.whom()).await;
}

/// The database's clock jumps when the host's time is set, or another host takes over. Then every lease has expired,
/// although no node was away.
#[tokio::test]
async fn a_database_whose_clock_jumps_ends_no_session() {
    let (first, second) = two_nodes();
    let room = first.classroom();
    let mut alice = first.participant(room, "alice").await;
    let mut bob = enters_on(&second, room, "bob").await;
    first.settled(room, [&mut alice, &mut bob]).await;
    // By then both nodes have renewed their leases for long enough to take over expired ones.
    let old = format!(
        "select count(*) from agent_session where started_at < clock_timestamp() - interval '{} s'",
        2 * LEASE.as_secs()
    );
    first.wait_for_rows(&old, &["2"]).await;
    first.rows("update node set lease_until = lease_until - interval '1 hour' returning id").await;
    first.wait_for_rows("select count(*) from node where lease_until > clock_timestamp()", &["2"]).await;
    first.nothing_came(room, [&mut alice, &mut bob]).await;
    assert_eq!(first.history(room).await, [""; 0]);
}

#[tokio::test]
async fn a_guest_that_joined_with_a_token_leaves_no_field_when_its_node_dies() {
    let first = Backend::start(Some(Servers::shared()), |options| short(options.clone()));
    let room = first.classroom();
    let mut node = Gateway::start(short(first.beside()).env("ROLLCALL_GUESTS", "true")).unwrap();
    let mut guest = Client::connect(node.address()).await.unwrap();
    let success = guest.connect_request_with(json!({"classroom_id": room.id, "agent_label": "web"})).await.unwrap();
    let join = json!({"lesson_id": room.algebra, "access_token": room.participant("alice")});
    assert_eq!(guest.request("join_lesson", join).await.unwrap()["status"], "SUCCESS");
    let mut keys = first.keys().await;
    let (students, user) = (student_hash(&room.algebra), room.user("alice"));
    crate::common::expect_field(&mut keys, &students, &user, success["sid"].as_str()).await;
    node.kill().unwrap();
    crate::common::expect_field(&mut keys, &students, &user, None).await;
}
