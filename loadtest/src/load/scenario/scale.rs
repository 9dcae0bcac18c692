//! What one node and many nodes on one machine cost Postgres, and how fast agents connect: at rest, as fast as
//! possible, and at a pace at which each node's batches are small.
//!
//! The same number of agents comes in each case. At rest a node may cost a few statements a second, for its lease and
//! its claims. The other cost should be that of the joins, and not depend on the number of nodes.
//!
//! The processor time of a join in Postgres has a limit at the fastest pace only, at which processor time is short. At
//! the slow pace a statement wakes a process whose memory has left the caches, and competes with the generator, so its
//! time says more about the machine.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rollcall_loadtest::Gateway;
use rollcall_loadtest::servers::{PostgresOptions, psql};

use crate::load::backends::Backends;
use crate::load::crew::Crew;
use crate::load::order::{Crowd, Goal, Pace};
use crate::load::proc;
use crate::load::results::Limit;
use crate::load::stage::{Stage, WINDOW};
use crate::load::system::{Kind, System};

const ROOM: usize = 30;
/// How long it takes until every node has its claims, and, after a wave, until its events are published.
const SETTLED: Duration = Duration::from_secs(8);
/// How long nodes are measured at rest.
const REST: Duration = Duration::from_secs(15);
/// The connections of a node. They are few, because 55 nodes have hundreds in all.
const POOL: u32 = 4;
/// The joins in a second of each node at the slow pace, if the machine can do them.
const SLOW: f64 = 20.0;
/// The share of the fastest rate that the slow pace may use.
const ROOM_TO_SPARE: f64 = 0.5;

const COUNTED: &str = "select coalesce(sum(calls), 0), coalesce(sum(total_exec_time + total_plan_time), 0) * 1000, \
    (select sum(sessions) from pg_stat_database) from pg_stat_statements";

/// The kinds of processes whose processor time is measured. That of Postgres includes commits.
const KINDS: [&str; 5] = ["Postgres", "gateways", "Redis", "NATS", "the generator"];
/// The place of Postgres in [`KINDS`].
const POSTGRES: usize = 0;

/// What Postgres has done since its start, and the processor time of all processes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    at: Instant,
    statements: f64,
    /// Microseconds in statements, including waits for locks.
    executed: f64,
    /// Connections that were made to Postgres.
    connections: f64,
    /// Microseconds of processor time of each kind of process, in the order of [`KINDS`].
    processor: [f64; KINDS.len()],
}

impl Cost {
    /// `generator` are the processes that are the clients.
    fn read(gateways: &[Gateway], backends: &Backends, generator: &[u32]) -> io::Result<Self> {
        let counted = psql(&backends.database, COUNTED)?;
        let numbers: Vec<f64> = counted.split('|').filter_map(|number| number.parse().ok()).collect();
        let [statements, executed, connections] = numbers[..] else { return Err(io::ErrorKind::InvalidData.into()) };
        let all = |pids: &mut dyn Iterator<Item = u32>| pids.map(proc::family_cpu_seconds).sum::<io::Result<f64>>();
        let one = |pid: u32| all(&mut std::iter::once(pid));
        let seconds = [
            one(backends.postgres.pid())?,
            all(&mut gateways.iter().map(Gateway::pid))?,
            one(backends.redis.pid())?,
            one(backends.nats.pid())?,
            all(&mut generator.iter().copied())?,
        ];
        let processor = seconds.map(|seconds| seconds * 1e6);
        Ok(Self { at: Instant::now(), statements, executed, connections, processor })
    }

    /// Returns the cost between two readings, and the seconds between them.
    fn since(self, before: Self) -> (f64, Self) {
        let spent = Self {
            at: self.at,
            statements: self.statements - before.statements,
            executed: self.executed - before.executed,
            connections: self.connections - before.connections,
            processor: std::array::from_fn(|kind| self.processor[kind] - before.processor[kind]),
        };
        (self.at.duration_since(before.at).as_secs_f64(), spent)
    }
}

/// Measures each of these numbers of nodes.
pub(crate) fn run(stage: &mut Stage, numbers: &[usize]) -> io::Result<()> {
    let mut first = None;
    for &nodes in numbers {
        let rate = measure(stage, nodes)?;
        let first = *first.get_or_insert(rate);
        let mut note = stage.note("scale", Kind::Real);
        let name = format!("{nodes} nodes: share of the rate of {} nodes", numbers[0]);
        note.figure(&name, rate / first, "", Some(Limit::AtLeast(0.6)));
    }
    Ok(())
}

/// Returns the rate at which agents connect and join.
fn measure(stage: &mut Stage, nodes: usize) -> io::Result<f64> {
    let agents = (stage.agents / nodes).max(ROOM);
    let crowds = |first: usize| (0..nodes).map(move |node| Crowd::new((first + node) as u16, agents, ROOM));
    let (fast, slow): (Vec<Crowd>, Vec<Crowd>) = (crowds(100).collect(), crowds(200).collect());
    let all: Vec<Crowd> = fast.iter().chain(&slow).cloned().collect();
    let settings = [("ROLLCALL_POSTGRES_POOL", POOL.to_string())];
    let nodes_count = u32::try_from(nodes).map_err(io::Error::other)?;
    let postgres = PostgresOptions {
        max_connections: 100 + nodes_count * (POOL + 4),
        settings: [("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.track_planning", "on")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..PostgresOptions::default()
    };
    let system = stage.start_on(Kind::Real, nodes, &all, &settings, postgres)?;
    let System::Gateways { gateways, backends: Some(backends), .. } = &system else {
        return Err(io::Error::other("a scale needs gateways with servers"));
    };
    psql(&backends.database, "create extension if not exists pg_stat_statements")?;
    let cost = |generator: &[u32]| Cost::read(gateways, backends, generator);

    thread::sleep(SETTLED);
    let before = cost(&[])?;
    thread::sleep(REST);
    let (rest, at_rest) = cost(&[])?.since(before);
    // The reading itself is one of the statements.
    let each = |value: f64| value / rest / nodes as f64;
    let mut note = stage.note("scale", Kind::Real);
    let name = format!("{nodes} nodes at rest");
    note.figure(
        &format!("{name}: statements a second, a node"),
        each(at_rest.statements - 1.0),
        "/s",
        Some(Limit::AtMost(3.0)),
    );
    for (kind, spent) in KINDS.iter().zip(at_rest.processor).take(KINDS.len() - 1) {
        note.figure(&format!("{name}: processor time of {kind}, a node"), each(spent), "us/s", None);
    }

    let mut crew = Crew::of(nodes)?;
    let targets = || gateways.iter().map(|gateway| gateway.address());
    let fast = crew.prepare_each(&fast.into_iter().zip(targets()).collect::<Vec<_>>())?;
    let before = cost(&crew.pids())?;
    let wave = crew.arrive(&fast, Pace::Window(WINDOW), Goal::Joined)?;
    let (_, spent) = cost(&crew.pids())?.since(before);
    let rate = wave.rate();
    let joins = fast.agents() as f64;
    let name = format!("{nodes} nodes, as fast as it goes");
    note.failures(&name, &wave);
    note.figure(&format!("{name}: connect and join"), rate, "/s", None);
    note.figure(&format!("{name}: statements each"), spent.statements / joins, "", None);
    note.figure(&format!("{name}: time in statements each"), spent.executed / joins, "us", None);
    note.figure(&format!("{name}: connections to Postgres made"), spent.connections, "", None);
    for (place, kind) in KINDS.iter().enumerate() {
        let most = (place == POSTGRES).then_some(Limit::AtMost(170.0));
        note.figure(&format!("{name}: processor time of {kind} each"), spent.processor[place] / joins, "us", most);
    }

    thread::sleep(SETTLED);
    let mut crew = Crew::of(nodes)?;
    let slow = crew.prepare_each(&slow.into_iter().zip(targets()).collect::<Vec<_>>())?;
    let pace = (SLOW * nodes as f64).min(rate * ROOM_TO_SPARE);
    let before = cost(&crew.pids())?;
    let wave = crew.arrive(&slow, Pace::Rate(pace), Goal::Joined)?;
    let (seconds, spent) = cost(&crew.pids())?.since(before);
    let joins = slow.agents() as f64;
    // The cost beyond that at rest, for each join.
    let beyond = |of: &dyn Fn(&Cost) -> f64| (of(&spent) - of(&at_rest) / rest * seconds) / joins;
    let name = format!("{nodes} nodes, {pace:.0} joins a second");
    note.failures(&name, &wave);
    note.figure(&format!("{name}: p99"), wave.quantile_ms(0.99), "ms", None);
    let most = Some(Limit::AtMost(3.0));
    note.figure(&format!("{name}: statements each, beyond those at rest"), beyond(&|cost| cost.statements), "", most);
    note.figure(
        &format!("{name}: time in statements each, beyond that at rest"),
        beyond(&|cost| cost.executed),
        "us",
        None,
    );
    for (place, kind) in KINDS.iter().enumerate() {
        let title = format!("{name}: processor time of {kind} each, beyond that at rest");
        note.figure(&title, beyond(&|cost| cost.processor[place]), "us", None);
    }
    Ok(rate)
}
