//! A node gets SIGTERM: while another node runs, while servers hang, and a second time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{join, join_all};
use rollcall_loadtest::client::{ClientError, Closing};
use rollcall_loadtest::servers::{Kind, Nats, Redis, Server};
use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};
use serde_json::json;

use crate::common::{Agent, Backend, Classroom, SOON, Servers, session_error, start_postgres, until};

const DEADLINE: Duration = Duration::from_secs(10);
/// The number of agents. At the configured pace they are told in about a second.
const AGENTS: usize = 120;
/// The number of agents that do not come back.
const TIRED: usize = 10;
/// The time over which the notices to clients are spread.
const SPREAD: Duration = Duration::from_millis(1200);

async fn enters(node: &Gateway, room: &Classroom, name: &str) -> Result<Agent, ClientError> {
    let mut client = Client::connect(node.address()).await?;
    let success = client.connect_request(&room.participant(name), &room.id, "web").await?;
    Ok(Agent::of(client, &success))
}

/// Starts a node beside the first. Its drain may take as long as `deadline`.
fn draining_after(first: &Backend, deadline: Duration) -> Gateway {
    let options = first.beside().env("ROLLCALL_DRAIN_DEADLINE", format!("{}ms", deadline.as_millis()));
    let options = options.env("ROLLCALL_DRAIN_SPREAD", format!("{}ms", SPREAD.as_millis()));
    Gateway::start(options.env("ROLLCALL_GUESTS", "true")).unwrap()
}

/// Expects the notice of the drain, and returns the time after which the client is to reconnect.
async fn is_told(client: &mut Client) -> Duration {
    let error = loop {
        match client.next_message(SOON).await.unwrap() {
            message if message["type"] == "recoverable_session_error" => break message,
            message => assert!(message["payload"]["label"] != "left", "{message}"),
        }
    };
    let closing = Closing { error: Some(error), code: Some(3001) };
    session_error(&closing, "terminated", 422, 3001);
    let after = closing.error.unwrap()["payload"]["reconnect_after_ms"].as_u64().unwrap();
    Duration::from_millis(after)
}

/// Expects the close frame, and no message before it.
async fn is_closed(client: &mut Client) {
    match client.next_message(SOON).await {
        Err(ClientError::Closed(closing)) => assert_eq!(closing.code, Some(3001), "{closing:?}"),
        other => panic!("{other:?}"),
    }
}

/// Expects the end on the last node: the notice and the close frame come at once.
async fn is_dismissed(agent: &mut Agent) {
    let closing = agent.client.expect_close(SOON).await.unwrap();
    session_error(&closing, "terminated", 422, 3001);
}

/// Expects that these moments are spread over about this time.
fn is_spread(mut moments: Vec<Instant>, over: Duration) {
    moments.sort_unstable();
    let (first, last) = (moments[0], moments[moments.len() - 1]);
    assert!(last - first > over / 2, "all within {:?}", last - first);
    let early = moments.iter().filter(|at| **at - first < over / 4).count();
    assert!(early < AGENTS / 2, "{early} of {AGENTS} in the first quarter");
}

#[tokio::test]
async fn a_client_that_waits_for_the_close_and_enters_elsewhere_has_not_left() {
    let first = Backend::start(Some(Servers::shared()), Clone::clone);
    let mut second = draining_after(&first, DEADLINE);
    let room = first.classroom();
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        agents.push(enters(&second, room, &format!("agent{number}")).await.unwrap());
    }
    let mut witness = first.participant(room, "witness").await;
    first.settled(room, [&mut witness]).await;

    let signalled = Instant::now();
    second.terminate().unwrap();
    let (first, room) = (&first, room);
    let moves = agents.into_iter().enumerate().map(async |(number, mut agent)| {
        let after = is_told(&mut agent.client).await;
        let told = Instant::now();
        is_closed(&mut agent.client).await;
        let closed = Instant::now();
        if number < TIRED {
            return (told, after, closed, Err(agent.session));
        }
        tokio::time::sleep_until((closed + after).into()).await;
        let again = enters(&first.gateway, room, &format!("agent{number}")).await.unwrap();
        assert_eq!(again.session, agent.session, "closed {:?} after the signal", closed - signalled);
        (told, after, closed, Ok(again))
    });
    let unready = async {
        // The node still serves clients now.
        let answer = second.get("/readyz").unwrap();
        assert_eq!((answer.0, answer.1.contains(r#""draining":true"#)), (503, true), "{answer:?}");
        assert!(enters(&second, room, "late").await.is_err());
    };
    let (moves, ()) = join(join_all(moves), unready).await;
    let status = second.wait(DEADLINE.saturating_sub(signalled.elapsed())).unwrap();
    assert_eq!(status.code(), Some(0), "{}", second.output());

    is_spread(moves.iter().map(|(told, ..)| *told).collect(), SPREAD);
    is_spread(moves.iter().map(|(_, _, closed, _)| *closed).collect(), DEADLINE / 20);
    assert!(moves.iter().all(|(_, _, closed, _)| *closed - signalled >= DEADLINE.mul_f64(0.75)));
    let waits: BTreeSet<_> = moves.iter().map(|(_, after, ..)| after.as_millis()).collect();
    assert!(waits.len() > AGENTS / 4, "the same waits again and again: {waits:?}");
    let mut gone: BTreeSet<i64> = moves.iter().filter_map(|(.., moved)| moved.as_ref().err().copied()).collect();
    assert!(first.history(room).await.iter().all(|row| row.ends_with("|drained")));
    assert_eq!(first.live(room).await.len(), AGENTS - TIRED + 1);
    while !gone.is_empty() {
        let event = witness.client.next_event(SOON).await.unwrap();
        assert_eq!(event.label(), Some("left"), "{event:?}");
        assert!(gone.remove(&event.sequence_id().unwrap()), "{event:?}");
    }
    first.nothing_came(room, [&mut witness]).await;
}

/// Delays a node's heartbeats, so that the node does not learn of takeovers, until the returned connection is dropped.
/// A heartbeat waits for the lock on the row only when it writes the lease, which it does after a quarter of the lease.
async fn hold_heartbeats(servers: &Servers, node: &Gateway) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&servers.postgres, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let of_node = format!("where label like '%{}%'", node.address());
    let shorter = format!(
        "update node set lease_until = clock_timestamp() + (lease_until - clock_timestamp()) * 0.5 {of_node} \
         returning lease_until::text"
    );
    let locked = format!("select lease_until::text from node {of_node} for no key update");
    loop {
        let shortened: String = client.query_one(&shorter, &[]).await.unwrap().get(0);
        client.batch_execute("begin").await.unwrap();
        let held: String = client.query_one(&locked, &[]).await.unwrap().get(0);
        if held == shortened {
            return client;
        }
        client.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_enters_elsewhere_first_misses_nothing_and_is_replaced_here() {
    let first = Backend::start(Some(Servers::shared()), Clone::clone);
    let mut second = draining_after(&first, Duration::from_secs(120));
    let room = first.classroom();
    let mut witness = first.participant(room, "witness").await;
    let mut alice = enters(&second, room, "alice").await.unwrap();
    let mut hasty = enters(&second, room, "hasty").await.unwrap();
    first.settled(room, [&mut witness, &mut alice, &mut hasty]).await;

    second.terminate().unwrap();
    is_told(&mut alice.client).await;
    is_told(&mut hasty.client).await;
    // The connection works during the drain: events come, and requests are answered.
    first.fence(room).is_next_for(&mut alice).await;
    alice.joins(&room.algebra).await;

    let held = hold_heartbeats(first.servers().unwrap(), &second).await;
    let mut after = enters(&first.gateway, room, "alice").await.unwrap();
    assert_eq!(after.session, alice.session);
    let fence = first.fence(room);
    for agent in [&mut alice, &mut after] {
        fence.is_next_for(agent).await;
    }
    drop(held);
    let closing = alice.client.expect_close(SOON).await.unwrap();
    session_error(&closing, "replaced", 422, 3503);
    after.joins(&room.algebra).await;

    // A client that closes right after the notice may still come back.
    let session = hasty.session;
    hasty.leaves().await;
    let ended = async || second.metric("rollcall_disconnects_total", &[r#"reason="drained""#]).unwrap();
    until("the node has seen it go", SOON, ended, |ended| *ended > 0.0).await;
    let again = enters(&first.gateway, room, "hasty").await.unwrap();
    assert_eq!(again.session, session);
    // No client is left, so the node ends long before its deadline. It has not waited for clients that moved.
    assert_eq!(second.wait(SOON).unwrap().code(), Some(0), "{}", second.output());
    assert_eq!(first.history(room).await, [""; 0]);
    let before = first.fence(room).read_to(&mut witness).await;
    assert!(before.iter().all(|event| event.label().is_none()), "{before:?}");
}

#[tokio::test]
async fn connections_without_a_session_are_told_and_closed() {
    let first = Backend::start(Some(Servers::shared()), Clone::clone);
    let mut second = draining_after(&first, Duration::from_secs(5));
    let room = first.classroom();
    let mut guest = Client::connect(second.address()).await.unwrap();
    guest.connect_request_with(json!({"classroom_id": room.id, "agent_label": "web"})).await.unwrap();
    let mut silent = Client::connect(second.address()).await.unwrap();
    // The connect takes a moment, in which the second node learns of the first.
    let alice = enters(&second, room, "alice").await.unwrap();
    let mut witness = first.participant(room, "witness").await;
    first.settled(room, [&mut witness]).await;
    alice.leaves().await;
    second.terminate().unwrap();
    // A connection without a session is closed at once.
    let closing = silent.expect_close(SOON).await.unwrap();
    session_error(&closing, "terminated", 422, 3001);
    is_told(&mut guest).await;
    assert_eq!(guest.join_lesson(&room.algebra).await.unwrap()["status"], "SUCCESS");
    is_closed(&mut guest).await;
    assert_eq!(second.wait(SOON).unwrap().code(), Some(0), "{}", second.output());
}

#[tokio::test]
async fn a_node_that_is_to_end_takes_connections_while_balancers_learn_it() {
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"));
    let mut node = Gateway::start(options.env("ROLLCALL_DRAIN_DELAY", "10m")).unwrap();
    let room = Classroom::new();
    let mut alice = enters(&node, &room, "alice").await.unwrap();
    node.terminate().unwrap();
    let ready = async || node.get("/readyz").unwrap().0;
    until("it is not ready", SOON, ready, |status| *status == 503).await;
    let mut late = enters(&node, &room, "late").await.unwrap();
    alice.sees("entered", &late.whom()).await;
    let over = node.metric("rollcall_drain_deadline_timestamp_seconds", &[]).unwrap();
    let left = over - token::seconds(SystemTime::now()) as f64;
    assert!((1.0..=611.0).contains(&left), "the delay and the drain's deadline are told: {left} s");
    // A second signal begins the drain.
    node.terminate().unwrap();
    is_dismissed(&mut alice).await;
    is_dismissed(&mut late).await;
    assert_eq!(node.wait(SOON).unwrap().code(), Some(0), "{}", node.output());
}

/// No other node is left to which clients could come back.
#[tokio::test]
async fn sessions_in_their_grace_end_with_the_last_node() {
    for servers in [None, Some(Servers::shared())] {
        let mut backend = Backend::start(servers, |options| options.clone().env("ROLLCALL_LEAVE_GRACE", "10m"));
        let alice = backend.participant(backend.classroom(), "alice").await;
        let left = format!("{}|{}|lost", alice.session, alice.id);
        drop(alice);
        let sessions = async || backend.gateway.metric("rollcall_sessions", &[]).unwrap();
        until("the break is seen", SOON, sessions, |sessions| *sessions == 0.0).await;
        assert_eq!(backend.value("select count(*) from agent_session").await, "1", "it may come back");
        backend.gateway.terminate().unwrap();
        assert_eq!(backend.gateway.wait(SOON).unwrap().code(), Some(0));
        assert_eq!(backend.rows("select id, agent_id, reason from agent_session_history").await, [left]);
        assert_eq!(backend.rows("select id from outbox").await, [""; 0]);
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let backend = Backend::embedded();
    let mut own = backend
        .another(|options| options.clone().env("ROLLCALL_DRAIN_DEADLINE", "60s").env("ROLLCALL_DRAIN_SPREAD", "30s"));
    let room = &own.classrooms()[0];
    let names: Vec<_> = (0..100).map(|number| format!("agent{number}")).collect();
    let mut agents = join_all(names.iter().map(|name| own.participant(room, name))).await;
    own.gateway.terminate().unwrap();
    let told = agents.iter_mut().map(|agent| Box::pin(is_dismissed(agent)));
    futures_util::future::select_all(told).await;
    own.gateway.terminate().unwrap();
    own.gateway.wait(Duration::from_secs(1)).unwrap();
}

/// Expects that the process ends in time with status 0 beside a server that hangs.
async fn ends_beside<K: Kind>(hanging: &Server<K>, servers: Servers) {
    let deadline = Duration::from_secs(3);
    let limit = |options: &rollcall_loadtest::GatewayOptions| options.clone().env("ROLLCALL_DRAIN_DEADLINE", "3s");
    let mut backend = Backend::start(Some(servers), limit);
    let room = &backend.classrooms()[0];
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    hanging.pause().unwrap();
    let signalled = Instant::now();
    backend.gateway.terminate().unwrap();
    is_dismissed(&mut alice).await;
    let status = backend.gateway.wait(deadline.saturating_sub(signalled.elapsed())).unwrap();
    assert_eq!(status.code(), Some(0), "{}", backend.gateway.output());
    hanging.resume().unwrap();
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_postgres_that_hangs() {
    let postgres = start_postgres().unwrap();
    let servers = Servers { postgres: postgres.create_database().unwrap(), ..Servers::shared() };
    ends_beside(&postgres, servers).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_redis_that_hangs() {
    let redis = Redis::start().unwrap();
    ends_beside(&redis, Servers { redis: redis.url(), ..Servers::shared() }).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_nats_that_hangs() {
    let nats = Nats::start().unwrap();
    ends_beside(&nats, Servers { nats: nats.url(), ..Servers::shared() }).await;
}
