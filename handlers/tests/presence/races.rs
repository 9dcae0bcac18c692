//! A thousand agents each enter on two nodes at the same moment. Afterwards each has one session with one owner.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};
use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::{Client, Gateway, GatewayOptions, raise_open_files};

use crate::common::{Agent, Backend, Classroom, SOON, Servers, session_error, until};

const AGENTS: usize = 1_000;
/// The classrooms have 20 agents each, so that the races cause the load and not their events.
const ROOMS: usize = 50;
/// The number of races. In the second race the winners of the first are connected.
const TIMES: usize = 2;
/// How many clients connect to a node at once. The race begins when all of them are connected.
const DIALS: usize = 50;

/// Enters. Returns `None` if the connection was replaced before it got connect_success.
async fn enters(mut client: Client, room: &Classroom, name: &str) -> Option<Agent> {
    match client.connect_request(&room.participant(name), &room.id, "web").await {
        Ok(success) => Some(Agent::of(client, &success)),
        Err(ClientError::Unexpected(message)) => {
            assert_eq!(message["payload"]["type"], "replaced", "{message}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Returns the sid of the connection that owns each session.
async fn owners(backend: &Backend) -> BTreeMap<i64, String> {
    let rows = backend.rows("select id, sid from agent_session").await;
    let rows = rows.iter().map(|row| row.split_once('|').unwrap());
    rows.map(|(session, sid)| (session.parse().unwrap(), sid.to_owned())).collect()
}

/// Lets every agent enter on both nodes at the same time. Afterwards a connection that is not the owner is closed, and
/// the owner's connection stays open.
async fn race(first: &Backend, second: &Gateway, before: Vec<Agent>) -> Vec<Agent> {
    let dial = async |node: &Gateway| Client::connect(node.address()).await.unwrap();
    let mut open = Vec::new();
    while open.len() < AGENTS {
        open.extend(join_all((0..DIALS).map(|_| join(dial(&first.gateway), dial(second)))).await);
    }
    let enter = open.into_iter().enumerate().map(async |(number, (here, there))| {
        let (room, name) = (&first.classrooms()[number % ROOMS], format!("agent{number}"));
        join(enters(here, room, &name), enters(there, room, &name)).await
    });
    let entered = join_all(enter).await;
    let owners = owners(first).await;
    assert_eq!(owners.len(), AGENTS, "a session each");
    let (mut stay, mut lost) = (Vec::new(), before);
    for agent in entered.into_iter().flat_map(|(here, there)| [here, there]).flatten() {
        let owner = owners.get(&agent.session).expect("a session of before the race, or one of its own, goes on");
        if *owner == agent.sid { &mut stay } else { &mut lost }.push(agent);
    }
    assert_eq!(stay.len(), AGENTS, "an owner each");
    join_all(lost.into_iter().map(async |mut agent| {
        session_error(&agent.client.expect_close(SOON).await.unwrap(), "replaced", 422, 3503);
    }))
    .await;
    stay
}

#[tokio::test]
async fn a_thousand_agents_that_race_on_two_nodes_have_one_session_and_one_owner_each() {
    let _held = crate::common::loads_the_machine().await;
    raise_open_files();
    // Clients that wait for the others do not answer pings meanwhile.
    let patient = |options: &GatewayOptions| {
        let limits = ["ROLLCALL_HEAD_TIMEOUT", "ROLLCALL_CONNECT_TIMEOUT", "ROLLCALL_PING_INTERVAL"];
        limits.iter().fold(options.clone(), |options, limit| options.env(limit, "10m"))
    };
    let first = Backend::start(Some(Servers::shared()), patient);
    let second = Gateway::start(patient(&first.beside())).unwrap();
    let mut stay = Vec::new();
    for _ in 0..TIMES {
        stay = race(&first, &second, stay).await;
    }
    let left = "select id, agent_id, reason, lifetime from agent_session_history";
    assert_eq!(
        first.rows(left).await,
        [""; 0],
        "nobody left; the nodes said:\n{}{}",
        first.gateway.output(),
        second.output()
    );
    let mut sessions: Vec<_> = stay.iter().map(|agent| agent.session).collect();
    sessions.sort_unstable();
    join_all(stay.into_iter().map(Agent::leaves)).await;
    let history = async || first.rows("select id from agent_session_history order by id").await;
    let history = until("the leaves", SOON, history, |left| left.len() >= AGENTS).await;
    assert_eq!(history, sessions.iter().map(i64::to_string).collect::<Vec<_>>());
    for room in &first.classrooms()[..ROOMS] {
        let stored = first.stored(&room.subject("agent"), AGENTS / ROOMS * 2).await.unwrap();
        let mut published = BTreeMap::<&str, Vec<&str>>::new();
        for message in &stored {
            let (session, operation) = ("Entity-Event-Sequence-Id", "Entity-Event-Operation");
            published.entry(message.header(session)).or_default().push(message.header(operation));
        }
        assert_eq!(published.len(), AGENTS / ROOMS);
        assert!(published.values().all(|events| *events == ["entered", "left"]), "{published:?}");
    }
}
