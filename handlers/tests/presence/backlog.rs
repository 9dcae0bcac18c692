//! NATS is away under load: joins and leaves go on, and once NATS is back every event arrives soon, once, and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rollcall_loadtest::Client;
use rollcall_loadtest::servers::Nats;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::common::{Agent, Backend, Classroom, Servers, Whom, until};

/// Returns how long NATS is away. To check the whole promise, run the test with `NATS_AWAY_SECONDS=60` and `--release`.
fn away() -> Duration {
    let seconds = std::env::var("NATS_AWAY_SECONDS").map_or(Ok(5), |seconds| seconds.parse());
    Duration::from_secs(seconds.expect("a number of seconds"))
}

/// At least this many events wait when NATS is back.
const ROWS: f64 = 500.0;
/// Within this time after NATS is back, everything that waited is published.
const RECOVERY: Duration = Duration::from_secs(5);
/// Within this time a connect is answered.
const ANSWER: Duration = Duration::from_secs(2);
/// The number of classrooms with agents that come and go, and of names in each.
const PEOPLE: usize = 3;
const NAMES: usize = 25;
/// The shortest time between two connects of one name: at most two thousand events a second in all.
const EVERY: Duration = Duration::from_millis(3);

/// The agents that entered and left, each with its classroom.
type Ledger = Vec<(usize, Whom)>;
/// The events `(label, session)` of each agent, in order.
type Events = BTreeMap<String, Vec<(String, i64)>>;

/// Agents enter and leave one after the other until `over` is set.
async fn comes_and_goes(backend: Arc<Backend>, number: usize, over: watch::Receiver<bool>) -> Ledger {
    let (room, mut ledger) = (&backend.classrooms()[number], Ledger::new());
    let mut pace = tokio::time::interval(EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for time in 0.. {
        pace.tick().await;
        if *over.borrow() {
            break;
        }
        let name = format!("agent{}", time % NAMES);
        let token = room.participant(&name);
        let asked = Instant::now();
        let mut client = Client::connect(backend.gateway.address()).await.unwrap();
        let success = client.connect_request(&token, &room.id, "web").await.unwrap();
        assert!(asked.elapsed() < ANSWER, "let in after {:?}", asked.elapsed());
        ledger.push((number, Agent::of(client, &success).leaves().await));
    }
    ledger
}

/// Reads until an event comes that is not about an agent.
async fn watches(mut witness: Agent) -> Events {
    let mut seen = Events::new();
    let patience = away() * 4 + RECOVERY;
    loop {
        let event = witness.client.next_event(patience).await.unwrap();
        let Some(label) = event.label() else { return seen };
        let (agent, session) = (event.agent_id().unwrap(), event.sequence_id().unwrap());
        seen.entry(agent.to_owned()).or_default().push((label.to_owned(), session));
    }
}

/// Returns the events that each agent must have: entered and left of one session after the other.
fn pairs(sessions: &Ledger, place: usize) -> Events {
    let mut expected = Events::new();
    let here = sessions.iter().filter(|(room, _)| *room == place);
    let here: BTreeMap<i64, &str> = here.map(|(_, whom)| (whom.session, whom.id.as_str())).collect();
    for (session, agent) in here {
        let events = ["entered", "left"].map(|label| (label.to_owned(), session));
        expected.entry(agent.to_owned()).or_default().extend(events);
    }
    expected
}

/// Expects in the stream of a classroom each message id once, and each agent's events in order.
async fn stream_agrees(backend: &Backend, room: &Classroom, expected: &Events) {
    let count = expected.values().map(Vec::len).sum();
    let mut stored = backend.stored(&room.subject("agent"), count).await.unwrap();
    let ids: BTreeSet<_> = stored.iter().map(|message| message.id().to_owned()).collect();
    assert_eq!(ids.len(), stored.len(), "a message id twice");
    stored.retain(|message| expected.contains_key(message.header("Sender-Agent-Id")));
    let mut seen = Events::new();
    for message in &stored {
        let session = message.header("Entity-Event-Sequence-Id").parse().unwrap();
        let event = (message.header("Entity-Event-Operation").to_owned(), session);
        seen.entry(message.header("Sender-Agent-Id").to_owned()).or_default().push(event);
    }
    assert!(seen == *expected, "the stream of {}", room.id);
}

async fn a_backlog(begin: fn(&mut Nats), end: fn(&mut Nats)) {
    let _held = crate::common::loads_the_machine().await;
    let mut nats = Nats::start().unwrap();
    let servers = Servers { nats: nats.url(), ..Servers::shared() };
    let backend = Arc::new(Backend::start(Some(servers), Clone::clone));
    let rooms = &backend.classrooms()[..PEOPLE];
    let witnesses = join_all(rooms.iter().map(|room| backend.participant(room, "witness"))).await;
    let witnesses: Vec<_> = witnesses.into_iter().map(watches).map(tokio::spawn).collect();
    begin(&mut nats);
    let (over, ending) = watch::channel(false);
    let people = (0..PEOPLE).map(|number| comes_and_goes(backend.clone(), number, ending.clone()));
    let people: Vec<_> = people.map(tokio::spawn).collect();

    let metric = |name: &str| backend.gateway.metric(name, &[]).unwrap();
    let backlog = async || (metric("rollcall_outbox_lag_seconds"), metric("rollcall_outbox_rows"));
    let away = away();
    let large = |(lag, rows): &(f64, f64)| *lag >= away.as_secs_f64() && *rows >= ROWS;
    until("a backlog", 4 * away, backlog, large).await;
    end(&mut nats);
    until("no backlog", RECOVERY, backlog, |(lag, _)| *lag < 1.0).await;
    over.send_replace(true);
    let ledgers = join_all(people).await.into_iter().map(Result::unwrap);
    let ledger: Ledger = ledgers.flatten().collect();
    backend.wait_for_rows("select count(*) from outbox", &["0"]).await;
    for (place, (room, witness)) in rooms.iter().zip(witnesses).enumerate() {
        backend.fence(room);
        let expected = pairs(&ledger, place);
        assert!(witness.await.unwrap() == expected, "what the witness of {} saw", room.id);
        stream_agrees(&backend, room, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nats_is_killed_under_load() {
    a_backlog(|nats| nats.kill().unwrap(), |nats| nats.restart().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nats_hangs_under_load() {
    a_backlog(|nats| nats.pause().unwrap(), |nats| nats.resume().unwrap()).await;
}
