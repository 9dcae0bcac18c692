//! A database that has lost its last commits: a replica that lagged is promoted, or a copy is put back (PROTOCOL 5).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::common::{Agent, Backend, Keys, SOON, Servers, agent_event, session_error, student_hash, until};
use rollcall_loadtest::client::ClientError;
use rollcall_loadtest::servers::{Nats, Postgres, Standby};
use rollcall_loadtest::{Client, Gateway, GatewayOptions, Wire};

/// How far ids jump after a failover.
const JUMP: i64 = 1_000_000;

/// A PostgreSQL, its standby, and a proxy that leads to the one that is the primary.
struct Database {
    primary: Postgres,
    standby: Standby,
    line: Wire,
    url: String,
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Database {
    fn start() -> Self {
        let primary = crate::common::start_postgres().unwrap();
        let direct = primary.create_database().unwrap();
        let standby = Standby::of(primary.port()).unwrap();
        let line = Wire::before(at(primary.port())).unwrap();
        let url = line.instead_of(&direct);
        Self { primary, standby, line, url }
    }

    /// Stops the replication: commits after this are lost in a failover.
    fn lags(&self) {
        self.standby.catch_up(&self.primary.url()).unwrap();
        self.standby.stop_receiving().unwrap();
    }

    fn fails_over(&mut self) {
        self.primary.kill().unwrap();
        self.standby.promote().unwrap();
        self.line.lead_to(at(self.standby.port()));
    }
}

/// Reads until this event comes.
async fn hears(agent: &mut Agent, label: &str, session: i64, id: &str) {
    let wanted = agent_event(label, session, id);
    while agent.client.next_event(SOON).await.unwrap().body != wanted {}
}

async fn joins_soon(agent: &mut Agent, lesson: &str) {
    let asking = async || agent.client.join_lesson(lesson).await.unwrap()["status"].clone();
    until("join_lesson", SOON, asking, |status| status == "SUCCESS").await;
}

#[tokio::test]
async fn sessions_that_the_promoted_replica_lacks_are_ended_from_memory() {
    let mut database = Database::start();
    let backend = Backend::start(Some(Servers { postgres: database.url.clone(), ..Servers::shared() }), Clone::clone);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let bob = backend.participant(room, "bob").await;
    let mut erin = backend.participant(room, "erin").await;
    for other in [&bob, &erin] {
        hears(&mut alice, "entered", other.session, &other.id).await;
    }

    database.lags();
    // The replica lacks these commits: it has no row of an agent that entered, and still has the row of an agent that
    // left.
    let mut lost = Vec::new();
    for number in 0..45 {
        let carol = backend.participant(room, &format!("carol-{number}")).await;
        hears(&mut alice, "entered", carol.session, &carol.id).await;
        lost.push(carol);
    }
    let bob = bob.leaves().await;
    hears(&mut alice, "left", bob.session, &bob.id).await;
    // One agent enters and leaves, so neither a row nor a connection is left of it.
    let dora = backend.participant(room, "dora").await;
    hears(&mut alice, "entered", dora.session, &dora.id).await;
    let dora = dora.leaves().await;
    hears(&mut alice, "left", dora.session, &dora.id).await;
    lost[0].joins(&room.algebra).await;
    erin.joins(&room.algebra).await;
    let highest = lost.last().unwrap().session;
    database.fails_over();

    let mut lefts = Vec::new();
    for carol in &mut lost {
        session_error(&carol.client.expect_close(SOON).await.unwrap(), "internal_server_error", 500, 3004);
        lefts.push((carol.session, format!("{}|{}|node_lost", carol.session, carol.id)));
    }
    lefts.push((bob.session, format!("{}|{}|node_lost", bob.session, bob.id)));
    lefts.push((dora.session, format!("{}|{}|closed", dora.session, dora.id)));
    // The database has lost the join that this agent's row had.
    session_error(&erin.client.expect_close(SOON).await.unwrap(), "internal_server_error", 500, 3004);
    lefts.push((erin.session, format!("{}|{}|kicked", erin.session, erin.id)));
    lefts.sort();
    let wanted: Vec<_> = lefts.into_iter().map(|(_, row)| row).collect();
    until("the history", SOON, async || backend.history(room).await, |rows| *rows == wanted).await;
    // Agents with a row stay connected, and get agent.left of the others.
    let mut missing: Vec<_> = lost.iter().map(|carol| agent_event("left", carol.session, &carol.id)).collect();
    while !missing.is_empty() {
        let event = alice.client.next_event(SOON).await.unwrap();
        missing.retain(|left| *left != event.body);
    }
    assert_eq!(backend.live(room).await, [format!("{}|{}", alice.session, alice.id)]);
    let mut keys = Keys::of(&Servers::shared().redis).await;
    let students = student_hash(&room.algebra);
    until("no field is left", SOON, async || keys.hash(&students).await, BTreeMap::is_empty).await;
    joins_soon(&mut alice, &room.algebra).await;
    // No id is given out a second time. New events reach the stream, although the old database used the same row
    // numbers.
    let again = backend.participant(room, "carol-0").await;
    assert!(again.session > highest + JUMP - 100, "{} after {highest}", again.session);
    hears(&mut alice, "entered", again.session, &again.id).await;
    let checks = backend.gateway.metric("rollcall_session_checks_total", &[]).unwrap();
    assert_eq!(checks, 1.0);
}

#[tokio::test]
async fn a_node_that_the_promoted_replica_has_never_heard_of_goes_on() {
    let mut database = Database::start();
    let backend = Backend::start(Some(Servers { postgres: database.url.clone(), ..Servers::shared() }), Clone::clone);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    database.lags();
    let other = Gateway::start(backend.beside()).unwrap();
    let enters = async |name: &str| {
        let mut client = Client::connect(other.address()).await?;
        let success = client.connect_request(&room.participant(name), &room.id, "web").await?;
        Ok::<_, ClientError>(Agent::of(client, &success))
    };
    let mut dora = enters("dora").await.unwrap();
    hears(&mut alice, "entered", dora.session, &dora.id).await;
    database.fails_over();

    session_error(&dora.client.expect_close(SOON).await.unwrap(), "internal_server_error", 500, 3004);
    hears(&mut alice, "left", dora.session, &dora.id).await;
    let again = until("a session", SOON, async || enters("dora").await, Result::is_ok).await.unwrap();
    assert!(again.session > dora.session + JUMP - 100);
    hears(&mut alice, "entered", again.session, &again.id).await;
    let live = [(alice.session, &alice.id), (again.session, &again.id)].map(|(session, id)| format!("{session}|{id}"));
    assert_eq!(backend.live(room).await, live);
    assert_eq!(backend.history(room).await, [format!("{}|{}|node_lost", dora.session, dora.id)]);
    let nodes = "select count(*) from node where not taken and lease_until > clock_timestamp()";
    assert_eq!(backend.value(nodes).await, "2");
    assert!(!other.all_output().contains("closing its sockets"), "{}", other.all_output());
}

/// Copies both files of the SQLite database.
fn copy(from: &Path, to: &Path) {
    for name in ["rollcall.db", "rollcall.db-wal"] {
        std::fs::remove_file(to.join(name)).ok();
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    std::fs::remove_file(to.join("rollcall.db-shm")).ok();
}

#[tokio::test]
async fn an_sqlite_file_that_is_put_back_gives_out_no_id_again() {
    let nats = Nats::start().unwrap();
    let mut gateway =
        Gateway::start(GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("NATS_URL", nats.url())).unwrap();
    let room = crate::common::Classroom::new();
    let kept = tempfile::tempdir().unwrap();
    let enter = async |gateway: &Gateway, name: &str| {
        let mut client = Client::connect(gateway.address()).await.unwrap();
        let success = client.connect_request(&room.participant(name), &room.id, "web").await.unwrap();
        Agent::of(client, &success)
    };
    let mut agents = vec![enter(&gateway, "alice").await];
    gateway.kill().unwrap();
    copy(gateway.folder(), kept.path());
    gateway.restart().unwrap();
    for name in ["bob", "carol"] {
        agents.push(enter(&gateway, name).await);
    }
    let stream = crate::common::Stream::of(&nats.url()).await;
    stream.wait_for(&room.subject("agent"), 3).await;
    gateway.kill().unwrap();
    copy(kept.path(), gateway.folder());
    gateway.restart().unwrap();
    for name in ["dora", "eve"] {
        agents.push(enter(&gateway, name).await);
    }
    let mut sessions: Vec<_> = agents.iter().map(|agent| agent.session).collect();
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 5, "{sessions:?}");
    let entered = |message: &crate::common::Stored| message.header("Entity-Event-Operation") == "entered";
    let all = async || stream.messages(&room.subject("agent")).await.into_iter().filter(entered).count();
    until("what is new is in the stream", SOON, all, |count| *count == 5).await;
}

/// The lease is long, so only the proof that its process is dead frees it.
#[tokio::test]
async fn a_standalone_node_that_was_killed_starts_again_at_once() {
    let postgres = crate::common::postgres().create_database().unwrap();
    let options =
        GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("DATABASE_URL", postgres).env("ROLLCALL_LEASE", "10m");
    let mut gateway = Gateway::start(options.clone()).unwrap();
    let refused = Gateway::start(options).map(drop).unwrap_err().to_string();
    assert!(refused.contains("holds a lease"), "{refused}");
    gateway.kill().unwrap();
    gateway.restart().unwrap();
    let label = format!("{}@", gateway.pid());
    assert!(gateway.get("/readyz").unwrap().0 == 200, "{label}");
}

#[tokio::test]
async fn a_backup_that_was_put_back_is_made_fit_for_use() {
    let postgres = crate::common::postgres().create_database().unwrap();
    let options =
        GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("DATABASE_URL", &postgres).env("ROLLCALL_LEASE", "2s");
    let mut gateway = Gateway::start(options.clone()).unwrap();
    let restored = || {
        let output = options.clone().arg("restored").command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    };
    let (done, said) = restored();
    assert!(!done && said.contains("stop every node"), "{said}");
    let room = crate::common::Classroom::new();
    let mut client = Client::connect(gateway.address()).await.unwrap();
    let success = client.connect_request(&room.participant("alice"), &room.id, "web").await.unwrap();
    gateway.kill().unwrap();
    // The command waits until the dead node's lease has ended.
    until("restored", Duration::from_secs(20), async || restored(), |(done, _)| *done).await;
    gateway.restart().unwrap();
    let mut client = Client::connect(gateway.address()).await.unwrap();
    let again = client.connect_request(&room.participant("alice"), &room.id, "web").await.unwrap();
    let sessions = [&success, &again].map(|success| success["session_id"].as_i64().unwrap());
    assert!(sessions[1] > sessions[0] + JUMP, "{sessions:?}");
}
