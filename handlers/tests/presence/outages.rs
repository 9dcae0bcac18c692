//! PROTOCOL 2, "While a backend is away": each server is killed, and stopped, while agents stay connected.

use std::time::{Duration, Instant};

use crate::common::{
    Agent, Backend, Classroom, Servers, Whom, agent_event, refused, session_error, student_hash, until,
};
use rollcall_loadtest::servers::{Kind, Nats, Redis, Server};
use rollcall_loadtest::{Client, Gateway, GatewayOptions};
use serde_json::{Value, json};

/// Within this time every request is answered.
const ANSWER: Duration = Duration::from_secs(2);
/// Within this time everything works again.
const RECOVERY: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    /// The server's connections stay open, and it answers nothing.
    Hanging,
}

impl Fault {
    fn begin<K: Kind>(self, server: &mut Server<K>) {
        match self {
            Self::Killed => server.kill(),
            Self::Hanging => server.pause(),
        }
        .unwrap();
    }

    fn end<K: Kind>(self, server: &mut Server<K>) {
        match self {
            Self::Killed => server.restart(),
            Self::Hanging => server.resume(),
        }
        .unwrap();
    }
}

async fn in_time<T>(what: &str, limit: Duration, answer: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let answer = answer.await;
    let took = start.elapsed();
    assert!(took <= limit, "{what} took {took:?}");
    answer
}

/// Returns an agent in a lesson, and one in none. Neither has anything left to read.
async fn people(backend: &Backend) -> (&Classroom, Agent, Agent) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let mut bob = backend.participant(room, "bob").await;
    backend.settled(room, [&mut alice, &mut bob]).await;
    alice.joins(&room.algebra).await;
    (room, alice, bob)
}

async fn is_told_to_try_later(agent: &mut Agent, lesson: &str) {
    let asked = agent.client.join_lesson(lesson);
    let ack = in_time("join_lesson", ANSWER, asked).await.unwrap();
    assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("try again later")), "{ack}");
    assert!(ack["retry_after_ms"].is_u64(), "{ack}");
}

/// Returns the status of /readyz, whose body names every backend.
fn ready(backend: &Backend) -> u16 {
    let (status, body) = backend.gateway.get("/readyz").unwrap();
    let body = body.to_lowercase();
    assert!(["postgres", "redis", "nats"].iter().all(|name| body.contains(name)), "{body}");
    assert_eq!(backend.gateway.get("/healthz").unwrap().0, 200);
    status
}

async fn is_ready(backend: &Backend, wanted: u16) {
    until("/readyz", RECOVERY, async || ready(backend), |status| *status == wanted).await;
}

/// Tries until the lesson is joined.
async fn joins_soon(agent: &mut Agent, lesson: &str) {
    let asking = async || agent.client.join_lesson(lesson).await.unwrap()["status"].clone();
    until("join_lesson", RECOVERY, asking, |status| status == "SUCCESS").await;
}

async fn lesson_of(backend: &Backend, agent: &Agent) -> String {
    backend.value(&format!("select lesson_id from agent_session where id = {}", agent.session)).await
}

async fn without_postgres(fault: Fault) {
    let _held = crate::common::measures_time().await;
    let mut postgres = crate::common::start_postgres().unwrap();
    let servers = Servers { postgres: postgres.create_database().unwrap(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), Clone::clone);
    let (room, mut alice, mut bob) = people(&backend).await;
    let newcomer = room.connect_request(&room.participant("carol"), "web");
    let newcomer = json!({"type": "connect_request", "payload": newcomer}).to_string();

    fault.begin(&mut postgres);
    let closing = in_time("connect_request", ANSWER, refused(&backend, &newcomer)).await;
    session_error(&closing, "internal_server_error", 500, 3004);
    is_told_to_try_later(&mut bob, &room.biology).await;
    is_ready(&backend, 503).await;
    // Connections stay open, and events go on.
    backend.nothing_came(room, [&mut alice, &mut bob]).await;

    fault.end(&mut postgres);
    joins_soon(&mut bob, &room.biology).await;
    is_ready(&backend, 200).await;
    let carol = backend.participant(room, "carol").await;
    // A refused agent left no event, or entered and left. No session of an agent that stayed has ended.
    let whole = [&alice, &bob, &carol].map(|agent| format!("{}|{}", agent.session, agent.id));
    until("the live rows", RECOVERY, async || backend.live(room).await, |live| *live == whole).await;
    assert_eq!(lesson_of(&backend, &alice).await, room.algebra);
    let history = backend.history(room).await;
    assert!(history.iter().all(|row| row.contains(&carol.id)), "{history:?}");
}

#[tokio::test]
async fn postgres_is_killed() {
    without_postgres(Fault::Killed).await;
}

#[tokio::test]
async fn postgres_hangs() {
    without_postgres(Fault::Hanging).await;
}

/// Tests an outage that is longer than the leases, so that all of them have expired when the server is back. Living
/// nodes are not taken for dead.
async fn outage_of_postgres_beyond_the_leases(fault: Fault) {
    let mut postgres = crate::common::start_postgres().unwrap();
    let servers = Servers { postgres: postgres.create_database().unwrap(), ..Servers::shared() };
    let short = |options: &GatewayOptions| options.clone().env("ROLLCALL_LEASE", "500ms");
    let backend = Backend::start(Some(servers.clone()), short);
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("DATABASE_URL", servers.postgres);
    let options = short(&options.env("REDIS_URL", servers.redis).env("NATS_URL", servers.nats));
    let mut others = [Gateway::start(options.clone()).unwrap(), Gateway::start(options).unwrap()];
    let (room, alice, bob) = people(&backend).await;
    let mut beyond = Vec::new();
    for (node, name) in others.iter().zip(["carol", "dora"]) {
        let mut client = Client::connect(node.address()).await.unwrap();
        let success = client.connect_request(&room.participant(name), &room.id, "web").await.unwrap();
        beyond.push(Agent::of(client, &success));
    }

    fault.begin(&mut postgres);
    for node in [&backend.gateway, &others[0]] {
        let renewals = [r#"operation="renew_lease""#];
        node.wait_for_metric("rollcall_backend_errors_total", &renewals, crate::common::SOON, |missed| missed >= 3.0)
            .unwrap();
    }
    others[1].kill().unwrap();
    fault.end(&mut postgres);
    // One node is dead. When its sessions have ended, another node that was taken for dead would have lost its
    // sessions, too.
    let dead = format!("{}|{}|node_lost", beyond[1].session, beyond[1].id);
    until("the history", crate::common::SOON, async || backend.history(room).await, |rows| rows.contains(&dead)).await;
    assert_eq!(backend.history(room).await, [dead]);
    let whole = [&alice, &bob, &beyond[0]].map(|agent| format!("{}|{}", agent.session, agent.id));
    assert_eq!(backend.live(room).await, whole);
}

#[tokio::test]
async fn postgres_is_killed_for_longer_than_the_leases() {
    outage_of_postgres_beyond_the_leases(Fault::Killed).await;
}

#[tokio::test]
async fn postgres_hangs_for_longer_than_the_leases() {
    outage_of_postgres_beyond_the_leases(Fault::Hanging).await;
}

/// The state is the one after a failover: earlier connections are broken, and connections made meanwhile can never
/// write.
#[tokio::test]
async fn postgres_is_a_standby_for_a_while() {
    let postgres = crate::common::start_postgres().unwrap();
    let servers = Servers { postgres: postgres.create_database().unwrap(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), Clone::clone);
    let (room, alice, mut bob) = people(&backend).await;
    let default = async |read_only: &str| {
        let alter =
            "execute format('alter database %I set default_transaction_read_only = READ_ONLY', current_database())";
        let alter = format!("begin read write; do $$ begin {alter}; end $$; commit").replace("READ_ONLY", read_only);
        backend.rows(&alter).await;
    };
    default("on").await;
    backend.rows("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rollcall'").await;
    is_told_to_try_later(&mut bob, &room.biology).await;
    is_ready(&backend, 503).await;
    default("off").await;
    joins_soon(&mut bob, &room.biology).await;
    is_ready(&backend, 200).await;
    let carol = backend.participant(room, "carol").await;
    let whole = [&alice, &bob, &carol].map(|agent| format!("{}|{}", agent.session, agent.id));
    assert_eq!(backend.live(room).await, whole);
}

async fn without_redis(fault: Fault) {
    let _held = crate::common::measures_time().await;
    let mut redis = Redis::start().unwrap();
    let backend = Backend::start(Some(Servers { redis: redis.url(), ..Servers::shared() }), Clone::clone);
    let (room, mut alice, mut bob) = people(&backend).await;

    fault.begin(&mut redis);
    is_told_to_try_later(&mut bob, &room.biology).await;
    // An agent in a lesson stays in it.
    is_told_to_try_later(&mut alice, &room.biology).await;
    assert_eq!(lesson_of(&backend, &alice).await, room.algebra);
    assert_eq!(lesson_of(&backend, &bob).await, "");
    let carol = in_time("connect_request", ANSWER, backend.participant(room, "carol")).await;
    for agent in [&mut alice, &mut bob] {
        agent.sees("entered", &carol.whom()).await;
    }
    // SQL is available, so the node is ready, and its answer names Redis as away.
    is_ready(&backend, 200).await;

    fault.end(&mut redis);
    joins_soon(&mut bob, &room.biology).await;
    backend.fence_on(&format!("lesson.{}.board", room.algebra)).is_next_for(&mut alice).await;
    // A killed Redis comes back empty, and its keys are written again from the rows in SQL.
    let mut keys = backend.keys().await.unwrap();
    let students = student_hash(&room.algebra);
    let field = async || keys.field(&students, &room.user("alice")).await;
    until(&students, Duration::from_secs(5), field, |sid| sid.as_ref() == Some(&alice.sid)).await;
}

#[tokio::test]
async fn redis_is_killed() {
    without_redis(Fault::Killed).await;
}

#[tokio::test]
async fn redis_hangs() {
    without_redis(Fault::Hanging).await;
}

async fn without_nats(fault: Fault) {
    let _held = crate::common::measures_time().await;
    let mut nats = Nats::start().unwrap();
    let backend = Backend::start(Some(Servers { nats: nats.url(), ..Servers::shared() }), Clone::clone);
    let (room, mut alice, mut bob) = people(&backend).await;

    fault.begin(&mut nats);
    let mut expected: Vec<(&str, Whom)> = Vec::new();
    // Connects and joins succeed, and one agent enters and leaves.
    let mut carol = in_time("connect_request", ANSWER, backend.participant(room, "carol")).await;
    in_time("join_lesson", ANSWER, carol.joins(&room.algebra)).await;
    in_time("join_lesson", ANSWER, bob.joins(&room.biology)).await;
    expected.push(("entered", carol.whom()));
    let guest = in_time("connect_request", ANSWER, backend.participant(room, "visitor")).await;
    let visitor = guest.leaves().await;
    expected.extend([("entered", visitor.clone()), ("left", visitor)]);
    // The events wait in the outbox.
    let outbox = format!("select operation from outbox where classroom_id = '{}' order by id", room.id);
    backend.wait_for_rows(&outbox, &["entered", "entered", "left"]).await;
    is_ready(&backend, 200).await;

    fault.end(&mut nats);
    let returned = Instant::now();
    arrive(&mut alice, &expected, returned).await;
    // In the stream, too, each event is once and in order, and nothing is left to publish.
    backend.wait_for_rows(&outbox, &[]).await;
    let stored = backend.stored(&room.subject("agent"), 5).await.unwrap();
    let mut ids: Vec<_> = stored.iter().map(crate::common::Stored::id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5, "alice, bob, carol, and the visitor twice: {ids:?}");
    backend.nothing_came(room, [&mut alice]).await;
    // Events of rooms that were entered during the outage arrive.
    let board = json!({"line": 1});
    backend.publish(&format!("lesson.{}.board", room.algebra), &board);
    hears(&mut carol, &board).await;
}

/// Expects the events of an outage, each once, and those of each agent in order.
async fn arrive(agent: &mut Agent, expected: &[(&str, Whom)], returned: Instant) {
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let left = RECOVERY.saturating_sub(returned.elapsed());
        let event = agent.client.next_event(left).await;
        seen.push(event.unwrap_or_else(|error| panic!("{error}; seen so far: {seen:#?}")).body);
    }
    for (label, whom) in expected {
        let event = agent_event(label, whom.session, &whom.id);
        assert_eq!(seen.iter().filter(|body| **body == event).count(), 1, "{event} in {seen:#?}");
    }
    let of_visitor = |body: &&Value| body["payload"]["agent_id"] == expected[2].1.id;
    let labels: Vec<_> = seen.iter().filter(of_visitor).map(|body| &body["payload"]["label"]).collect();
    assert_eq!(labels, ["entered", "left"]);
}

/// Reads until this event comes.
async fn hears(agent: &mut Agent, event: &Value) {
    while agent.client.next_event(crate::common::SOON).await.unwrap().body != *event {}
}

#[tokio::test]
async fn nats_is_killed() {
    without_nats(Fault::Killed).await;
}

#[tokio::test]
async fn nats_hangs() {
    without_nats(Fault::Hanging).await;
}
