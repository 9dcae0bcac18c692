//! A node's connection to one of the servers is faulty, while that server and the other node work (PROTOCOL 2 and 5).
//! Every request gets a true answer in time, and everything works again soon after.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::common::{Agent, Backend, Classroom, SOON, Servers, Whom, agent_event, session_error, student_hash, until};
use rollcall_loadtest::client::{ClientError, Closing};
use rollcall_loadtest::servers::shared;
use rollcall_loadtest::{Client, Gateway, GatewayOptions, Way, Wire};
use serde_json::{Value, json};

const LEASE: Duration = Duration::from_secs(2);
/// The lease is so long that no node takes it while a test runs.
const LONG: Duration = Duration::from_secs(60);
/// Within this time every request is answered.
const ANSWER: Duration = Duration::from_secs(2);
/// Within this time everything works again.
const RECOVERY: Duration = Duration::from_secs(3);
/// The number of classrooms. With this number each node publishes the events of some of them.
const MANY: usize = 24;

type Fault = fn(&Wire);

fn nothing_passes(line: &Wire) {
    line.hold(Way::Both);
}
fn nothing_arrives(line: &Wire) {
    line.hold(Way::Up);
}
fn nothing_is_answered(line: &Wire) {
    line.hold(Way::Down);
}
fn all_is_refused(line: &Wire) {
    line.close();
}
fn all_is_late(line: &Wire) {
    line.delay(Duration::from_millis(1500));
}

/// A healthy node, and another one with a proxy before each of its servers.
struct Nodes {
    healthy: Backend,
    other: Gateway,
    postgres: Wire,
    redis: Wire,
    nats: Wire,
}

impl Nodes {
    fn start() -> Self {
        Self::with_lease(LEASE)
    }

    fn with_lease(lease: Duration) -> Self {
        let leased = |options: GatewayOptions| options.env("ROLLCALL_LEASE", format!("{}s", lease.as_secs()));
        let healthy = Backend::start(Some(Servers::shared()), |options| leased(options.clone()));
        let Servers { postgres: database, redis: keys, nats: bus, .. } = healthy.servers().unwrap();
        let before = |port| Wire::before(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        let postgres = before(crate::common::postgres().port());
        let (redis, nats) = (before(shared::redis().port()), before(shared::nats().port()));
        let options = leased(GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")));
        let options = options.env("DATABASE_URL", postgres.instead_of(database));
        let options = options.env("REDIS_URL", redis.instead_of(keys)).env("NATS_URL", nats.instead_of(bus));
        let other = Gateway::start(options).unwrap();
        Self { healthy, other, postgres, redis, nats }
    }

    /// Lets a participant enter on the node with the faulty connection.
    async fn enters_beyond(&self, room: &Classroom, name: &str) -> Result<Agent, ClientError> {
        let mut client = Client::connect(self.other.address()).await?;
        let success = client.connect_request(&room.participant(name), &room.id, "web").await?;
        Ok(Agent::of(client, &success))
    }

    /// Expects that the faulty node refuses an agent in time, and returns how the connection ended.
    async fn refuses(&self, room: &Classroom, name: &str) -> Closing {
        let mut client = Client::connect(self.other.address()).await.unwrap();
        let request = room.connect_request(&room.participant(name), "web");
        client.send(&json!({"type": "connect_request", "payload": request})).await.unwrap();
        in_time("connect_request", ANSWER, client.expect_close(SOON)).await.unwrap()
    }

    async fn comes_back(&self, room: &Classroom, name: &str) -> Agent {
        until("a session", RECOVERY, async || self.enters_beyond(room, name).await, Result::is_ok).await.unwrap()
    }
}

async fn in_time<T>(what: &str, limit: Duration, answer: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let answer = answer.await;
    assert!(start.elapsed() <= limit, "{what} took {:?}", start.elapsed());
    answer
}

async fn is_told_to_try_later(agent: &mut Agent, lesson: &str) {
    let ack = in_time("join_lesson", ANSWER, agent.client.join_lesson(lesson)).await.unwrap();
    assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("try again later")), "{ack}");
}

async fn joins_soon(agent: &mut Agent, lesson: &str) {
    let asking = async || agent.client.join_lesson(lesson).await.unwrap()["status"].clone();
    until("join_lesson", RECOVERY, asking, |status| status == "SUCCESS").await;
}

/// Tests a fault that lasts longer than the lease. The node's agents have left for all others, and none has two
/// sessions afterwards.
async fn cut_off_from_postgres(fault: Fault) {
    let _held = crate::common::measures_time().await;
    let nodes = Nodes::start();
    let room = nodes.healthy.classroom();
    let mut witness = nodes.healthy.participant(room, "witness").await;
    let mut bob = nodes.enters_beyond(room, "bob").await.unwrap();
    bob.joins(&room.algebra).await;
    nodes.healthy.settled(room, [&mut witness, &mut bob]).await;

    fault(&nodes.postgres);
    let began = Instant::now();
    let closing = nodes.refuses(room, "carol").await;
    session_error(&closing, "internal_server_error", 500, 3004);
    is_told_to_try_later(&mut bob, &room.biology).await;
    let gone = agent_event("left", bob.session, &bob.id);
    assert_eq!(next_not_of(&room.agent("web", "carol"), &mut witness).await, gone);
    assert!(began.elapsed() < LEASE + Duration::from_secs(5), "after {:?}", began.elapsed());
    let mut keys = nodes.healthy.keys().await;
    let students = student_hash(&room.algebra);
    crate::common::expect_field(&mut keys, &students, &room.user("bob"), None).await;

    nodes.postgres.clear();
    // The node learns that its lease was taken, and closes its sockets.
    let closing = in_time("the end", RECOVERY, bob.client.expect_close(SOON)).await.unwrap();
    assert!(closing.code.is_some_and(|code| (3000..3500).contains(&code)), "{closing:?}");
    let again = nodes.comes_back(room, "bob").await;
    assert!(again.session > bob.session);
    let carol = room.agent("web", "carol");
    assert_eq!(next_not_of(&carol, &mut witness).await, agent_event("entered", again.session, &again.id));
    // A refused client left nothing behind, or entered and left.
    let of_bob = |rows: Vec<String>| rows.into_iter().filter(|row| !row.contains(&carol)).collect::<Vec<_>>();
    let history = async || of_bob(nodes.healthy.history(room).await);
    until("the history", SOON, history, |rows| *rows == [format!("{}|{}|node_lost", bob.session, bob.id)]).await;
    let live = [&witness, &again].map(|agent| format!("{}|{}", agent.session, agent.id));
    until("who is there", SOON, async || nodes.healthy.live(room).await, |rows| *rows == live).await;
}

/// Returns the next event that is not about this agent.
async fn next_not_of(other: &str, witness: &mut Agent) -> Value {
    loop {
        let event = witness.client.next_event(SOON).await.unwrap();
        if event.agent_id() != Some(other) {
            return event.body;
        }
    }
}

#[tokio::test]
async fn nothing_passes_to_or_from_postgres() {
    cut_off_from_postgres(nothing_passes).await;
}
#[tokio::test]
async fn nothing_arrives_at_postgres() {
    cut_off_from_postgres(nothing_arrives).await;
}
#[tokio::test]
async fn postgres_answers_nothing() {
    cut_off_from_postgres(nothing_is_answered).await;
}
#[tokio::test]
async fn postgres_is_not_reached() {
    cut_off_from_postgres(all_is_refused).await;
}
#[tokio::test]
async fn postgres_is_far_away() {
    cut_off_from_postgres(all_is_late).await;
}

#[tokio::test]
async fn a_connection_replaced_on_another_node_is_closed_although_an_answer_is_lost() {
    let nodes = Nodes::with_lease(LONG);
    let room = nodes.healthy.classroom();
    for turn in 0..20 {
        let name = format!("bob-{turn}");
        let mut bob = nodes.enters_beyond(room, &name).await.unwrap();
        let node = format!("select node_id from agent_session where id = {}", bob.session);
        let node = nodes.healthy.value(&node).await;
        nodes.postgres.hold(Way::Down);
        let again = nodes.healthy.participant(room, &name).await;
        // The answer to the node's next heartbeat names bob as replaced. The heartbeat writes the lease after a part of
        // it has gone, which shows that it was carried out.
        let lease = format!("select lease_until::text from node where id = {node}");
        let shorter = LONG.as_secs() / 3;
        let shorter = format!(
            "update node set lease_until = lease_until - interval '{shorter} s' where id = {node} returning id"
        );
        nodes.healthy.rows(&shorter).await;
        let before = nodes.healthy.value(&lease).await;
        let heard = until("a heartbeat", SOON, async || nodes.healthy.value(&lease).await, |lease| *lease != before);
        let heard = tokio::time::timeout(ANSWER, heard).await.is_ok();
        nodes.postgres.cut();
        nodes.postgres.clear();
        session_error(&bob.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);
        again.leaves().await;
        if heard {
            return;
        }
        // The heartbeat before the takeover was the one whose answer was held back.
        let enters = async || nodes.enters_beyond(room, "between").await.is_ok();
        until("the database is back", SOON, enters, |entered| *entered).await;
    }
    panic!("no answer that named him was lost");
}

#[tokio::test]
async fn a_connection_replaced_on_the_same_node_is_closed_although_an_answer_is_lost() {
    let nodes = Nodes::with_lease(LONG);
    let room = nodes.healthy.classroom();
    for turn in 0..20 {
        let name = format!("bob-{turn}");
        let mut bob = nodes.enters_beyond(room, &name).await.unwrap();
        nodes.postgres.hold(Way::Down);
        let mut again = Client::connect(nodes.other.address()).await.unwrap();
        let request = room.connect_request(&room.participant(&name), "web");
        again.send(&json!({"type": "connect_request", "payload": request})).await.unwrap();
        let owner = format!("select sid from agent_session where id = {}", bob.session);
        let taken = until("a takeover", SOON, async || nodes.healthy.value(&owner).await, |owner| *owner != bob.sid);
        let taken = tokio::time::timeout(ANSWER, taken).await.is_ok();
        nodes.postgres.cut();
        nodes.postgres.clear();
        if taken {
            return session_error(&bob.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);
        }
        // The connection had not prepared the statement yet, and the answer to the preparation was held back.
        let enters = async || nodes.enters_beyond(room, "between").await.is_ok();
        until("the database is back", SOON, enters, |entered| *entered).await;
    }
    panic!("no takeover was carried out");
}

async fn cut_off_from_redis(fault: Fault) {
    let _held = crate::common::measures_time().await;
    let nodes = Nodes::start();
    let room = nodes.healthy.classroom();
    let mut witness = nodes.healthy.participant(room, "witness").await;
    let mut bob = nodes.enters_beyond(room, "bob").await.unwrap();
    nodes.healthy.settled(room, [&mut witness, &mut bob]).await;

    fault(&nodes.redis);
    is_told_to_try_later(&mut bob, &room.algebra).await;
    let mut carol = in_time("connect_request", ANSWER, nodes.enters_beyond(room, "carol")).await.unwrap();
    is_told_to_try_later(&mut carol, &room.algebra).await;
    let carol = carol.leaves().await;
    for label in ["entered", "left"] {
        witness.sees(label, &carol).await;
    }
    nodes.healthy.nothing_came(room, [&mut witness]).await;

    nodes.redis.clear();
    joins_soon(&mut bob, &room.biology).await;
    let mut keys = nodes.healthy.keys().await;
    // Writes of earlier joins that were held back arrived late, and changed nothing.
    let (algebra, biology) = (student_hash(&room.algebra), student_hash(&room.biology));
    crate::common::expect_field(&mut keys, &biology, &room.user("bob"), Some(&bob.sid)).await;
    crate::common::expect_field(&mut keys, &algebra, &room.user("bob"), None).await;
    crate::common::expect_field(&mut keys, &algebra, &room.user("carol"), None).await;
}

#[tokio::test]
async fn nothing_passes_to_or_from_redis() {
    cut_off_from_redis(nothing_passes).await;
}
#[tokio::test]
async fn redis_answers_nothing() {
    cut_off_from_redis(nothing_is_answered).await;
}
#[tokio::test]
async fn redis_is_not_reached() {
    cut_off_from_redis(all_is_refused).await;
}
#[tokio::test]
async fn redis_is_far_away() {
    cut_off_from_redis(all_is_late).await;
}

/// Tests a fault of one node's connection to NATS. The healthy node's clients get every event in time, whichever node
/// had to publish the event. The other node's clients get the events afterwards.
async fn cut_off_from_nats(fault: Fault) {
    let _held = crate::common::measures_time().await;
    let nodes = Nodes::start();
    let rooms = &nodes.healthy.classrooms()[..MANY];
    let mut witnesses = Vec::new();
    for room in rooms {
        witnesses.push(nodes.healthy.participant(room, "witness").await);
    }
    let mut bob = nodes.enters_beyond(&rooms[0], "bob").await.unwrap();
    nodes.healthy.settled(&rooms[0], [&mut witnesses[0], &mut bob]).await;

    fault(&nodes.nats);
    let began = Instant::now();
    let mut expected: Vec<(&str, Whom)> = Vec::new();
    for (room, witness) in rooms.iter().zip(&mut witnesses) {
        let carol = nodes.healthy.participant(room, "carol").await.leaves().await;
        for label in ["entered", "left"] {
            witness.sees(label, &carol).await;
            expected.push((label, carol.clone()));
        }
        assert!(began.elapsed() < Duration::from_secs(8), "{:?} for a part of {MANY}", began.elapsed());
    }
    // A connect on the node without NATS does not wait.
    let mut dora = in_time("connect_request", ANSWER, nodes.enters_beyond(&rooms[0], "dora")).await.unwrap();
    in_time("join_lesson", ANSWER, dora.joins(&rooms[0].algebra)).await;
    witnesses[0].sees("entered", &dora.whom()).await;

    nodes.nats.clear();
    let back = Instant::now();
    for (label, carol) in &expected[..2] {
        let left = RECOVERY.saturating_sub(back.elapsed());
        assert_eq!(bob.client.next_event(left).await.unwrap().body, agent_event(label, carol.session, &carol.id));
    }
    bob.sees("entered", &dora.whom()).await;
    nodes.healthy.settled(&rooms[0], [&mut witnesses[0], &mut bob]).await;
}

#[tokio::test]
async fn nothing_passes_to_or_from_nats() {
    cut_off_from_nats(nothing_passes).await;
}
#[tokio::test]
async fn nats_answers_nothing() {
    cut_off_from_nats(nothing_is_answered).await;
}
#[tokio::test]
async fn nats_is_not_reached() {
    cut_off_from_nats(all_is_refused).await;
}

#[tokio::test]
async fn a_node_without_any_server_answers_in_time() {
    let _held = crate::common::measures_time().await;
    let nodes = Nodes::start();
    let room = nodes.healthy.classroom();
    let mut bob = nodes.enters_beyond(room, "bob").await.unwrap();
    let lines = [&nodes.postgres, &nodes.redis, &nodes.nats];
    lines.into_iter().for_each(nothing_passes);
    for _ in 0..3 {
        let closing = nodes.refuses(room, "carol").await;
        session_error(&closing, "internal_server_error", 500, 3004);
    }
    is_told_to_try_later(&mut bob, &room.algebra).await;
    lines.into_iter().for_each(Wire::clear);
    let mut bob = nodes.comes_back(room, "bob").await;
    joins_soon(&mut bob, &room.algebra).await;
}
