//! SIGTERM beside another node, beside servers that hang, and twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::servers::{Kind, Nats, Redis, Server};
use rollcall_loadtest::{Client, Gateway};

use crate::common::{Agent, Backend, Classroom, SOON, Servers, session_error, start_postgres, until};

const DEADLINE: Duration = Duration::from_secs(5);
/// As many as are told in a second, at the pace that is asked for.
const AGENTS: usize = 120;
/// Of them, those who go away for good.
const TIRED: usize = 10;
/// Over how long the goodbyes are spread.
const SPREAD: Duration = Duration::from_millis(1200);

async fn enters(node: &Gateway, room: &Classroom, name: &str) -> Result<Agent, ClientError> {
    let mut client = Client::connect(node.address()).await?;
    let success = client.connect_request(&room.participant(name), &room.id, "web").await?;
    Ok(Agent::of(client, &success))
}

/// How an agent was sent away: when, and after what it is to come back.
async fn is_dismissed(agent: &mut Agent) -> (Instant, Duration) {
    let closing = agent.client.expect_close(SOON).await.unwrap();
    session_error(&closing, "terminated", 422, 3001);
    let after = closing.error.unwrap()["payload"]["reconnect_after_ms"].as_u64().unwrap();
    (Instant::now(), Duration::from_millis(after))
}

/// That the goodbyes came one after the other, and that those who were told do not come back all at once.
fn no_herd(mut told: Vec<(Instant, Duration)>) {
    told.sort_unstable();
    let (first, last) = (told[0].0, told[told.len() - 1].0);
    assert!(last - first > SPREAD / 2, "all within {:?}", last - first);
    let early = told.iter().filter(|(at, _)| *at - first < SPREAD / 4).count();
    assert!(early < AGENTS / 2, "{early} of {AGENTS} in the first quarter");
    let waits: BTreeSet<_> = told.iter().map(|(_, after)| after.as_millis()).collect();
    assert!(waits.len() > AGENTS / 4, "the same waits again and again: {waits:?}");
}

#[tokio::test]
async fn who_comes_back_elsewhere_has_not_left() {
    let first = Backend::start(Some(Servers::shared()), Clone::clone);
    let options = first.beside().env("ROLLCALL_DRAIN_DEADLINE", format!("{}ms", DEADLINE.as_millis()));
    let mut second = Gateway::start(options.env("ROLLCALL_DRAIN_SPREAD", format!("{}ms", SPREAD.as_millis()))).unwrap();
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
        let (told, after) = is_dismissed(&mut agent).await;
        if number < TIRED {
            return (told, after, Err(agent.session));
        }
        tokio::time::sleep_until((told + after).into()).await;
        let again = enters(&first.gateway, room, &format!("agent{number}")).await.unwrap();
        assert_eq!(again.session, agent.session, "told {:?} after the signal", told - signalled);
        (told, after, Ok(again))
    });
    let moves = join_all(moves);
    let unready = async {
        // While it still says goodbye.
        let answer = second.get("/readyz").unwrap();
        assert_eq!((answer.0, answer.1.contains(r#""draining":true"#)), (503, true), "{answer:?}");
        assert!(enters(&second, room, "late").await.is_err());
    };
    let (moves, ()) = futures_util::future::join(moves, unready).await;
    let status = second.wait(DEADLINE.saturating_sub(signalled.elapsed())).unwrap();
    assert_eq!(status.code(), Some(0), "{}", second.output());

    no_herd(moves.iter().map(|(told, after, _)| (*told, *after)).collect());
    let mut gone: BTreeSet<i64> = moves.iter().filter_map(|(_, _, moved)| moved.as_ref().err().copied()).collect();
    assert!(first.history(room).await.iter().all(|row| row.ends_with("|drained")));
    assert_eq!(first.live(room).await.len(), AGENTS - TIRED + 1);
    while !gone.is_empty() {
        let event = witness.client.next_event(SOON).await.unwrap();
        assert_eq!(event.label(), Some("left"), "{event:?}");
        assert!(gone.remove(&event.sequence_id().unwrap()), "{event:?}");
    }
    first.nothing_came(room, [&mut witness]).await;
}

/// There is no other node to come back to.
#[tokio::test]
async fn who_is_waited_for_has_left_when_the_last_node_ends() {
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

/// The process ends in time and well, whoever hangs.
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
