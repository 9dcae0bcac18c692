//! The chaos suite: three nodes, agents that come and go, faults from a seed, and a ledger that must balance.
//!
//! A seed says who does what and what breaks when. When its storm is over everybody leaves, and then the clients' own
//! logs, the stream, the history and Redis must agree: see [`ledger`] and [`delivery`].

mod agent;
mod cluster;
mod connection;
mod delivery;
mod journal;
mod ledger;
mod plan;
mod random;
mod storm;
mod stream;
mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use agent::{Agent, Stage};
use cluster::Cluster;
use journal::Journal;
use ledger::Evidence;
use plan::{CLASSROOMS, Plan};
use random::Random;

/// After the last fault: the agents' own visits are over then.
const CALM: Duration = Duration::from_millis(3600);
/// How long the nodes may take to write down that everybody left, and to publish it.
const QUIESCENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const MOST_SHOWN: usize = 20;

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// The gateway to break.
    #[arg(long, default_value = "target/release/rollcall")]
    gateway: PathBuf,
    /// How many seeds.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// This one alone.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
}

struct Verdict {
    violations: Vec<String>,
    /// What there was to judge.
    summary: String,
}

/// Runs the seeds; whether every ledger balanced.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let seeds: Vec<u64> = match options.seed {
        Some(seed) => vec![seed],
        None => (options.first..options.first + options.seeds).collect(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = Instant::now();
    let mut cluster = runtime.block_on(Cluster::start(&options.gateway))?;
    let mut failed = Vec::new();
    for seed in &seeds {
        let started = Instant::now();
        let plan = Plan::of(*seed);
        let storm = plan.storm();
        let verdict = play(&runtime, &mut cluster, plan)?;
        let result = if verdict.violations.is_empty() { "balanced" } else { "FAILED" };
        println!("seed {seed}: {result} in {:.1?}: {} [{storm}]", started.elapsed(), verdict.summary);
        if verdict.violations.is_empty() {
            continue;
        }
        failed.push(*seed);
        for violation in verdict.violations.iter().take(MOST_SHOWN) {
            println!("  {violation}");
        }
        if verdict.violations.len() > MOST_SHOWN {
            println!("  and {} more", verdict.violations.len() - MOST_SHOWN);
        }
        keep_outputs(&cluster, *seed)?;
        println!("  again: rollcall-loadtest chaos --gateway {} --seed {seed}", options.gateway.display());
        // What is left of it shall not spoil the next one.
        cluster = runtime.block_on(Cluster::start(&options.gateway))?;
    }
    println!("{} of {} seeds balanced in {:.0?}", seeds.len() - failed.len(), seeds.len(), begun.elapsed());
    if !failed.is_empty() {
        println!("failed: {failed:?}");
    }
    Ok(failed.is_empty())
}

/// One seed, from the first agent to the verdict.
fn play(runtime: &Runtime, cluster: &mut Cluster, plan: Plan) -> io::Result<Verdict> {
    let Plan { seed, agents, faults } = plan;
    // A run of its own each time: the servers may have seen this seed before.
    let run = Random::new(seed ^ u64::from(std::process::id()) << 32).next();
    let classrooms: Vec<String> = (0..CLASSROOMS).map(|number| classroom(seed, run, number)).collect();
    let lessons: Vec<String> = (0..CLASSROOMS).map(|number| format!("chaos-{seed}-{number}")).collect();
    cluster.add_lessons(&lessons, &classrooms)?;
    let nats = runtime.block_on(async_nats::connect(cluster.nats.url())).map_err(io::Error::other)?;
    let before = runtime.block_on(stream::last(&nats)).map_err(io::Error::other)?;
    let (over, told) = watch::channel(false);
    let stage = Arc::new(Stage {
        seed,
        nodes: cluster.wires.iter().map(wire::Wire::address).collect(),
        classrooms: classrooms.clone(),
        lessons: lessons.clone(),
        journal: Journal::default(),
        over: told,
    });
    let start = Instant::now();
    let agents: Vec<_> =
        agents.into_iter().map(|plan| runtime.spawn(Agent::new(plan, Arc::clone(&stage)).live())).collect();
    let chatter = runtime.spawn(stream::chatter(nats.clone(), Arc::clone(&stage)));
    storm::rage(cluster, &faults, start)?;
    thread::sleep((start + CALM).saturating_duration_since(Instant::now()));
    over.send_replace(true);
    runtime.block_on(async {
        for agent in agents {
            agent.await.map_err(io::Error::other)?;
        }
        chatter.await.map_err(io::Error::other)
    })?;
    let unfinished = until_empty(QUIESCENCE, || cluster.unfinished(&classrooms))?;
    let mut rooms: Vec<String> = classrooms.iter().map(|id| format!("classroom.{id}")).collect();
    rooms.extend(lessons.iter().map(|id| format!("lesson.{id}")));
    let evidence = Evidence {
        connections: stage.journal.read(),
        stream: runtime.block_on(stream::read(&nats, before, &rooms)).map_err(io::Error::other)?,
        history: cluster.history(&classrooms)?,
        fields: until_empty(QUIESCENCE / 4, || cluster.fields(&lessons))?,
    };
    let mut violations: Vec<String> = unfinished.lines().map(|line| format!("not over: {line}")).collect();
    violations.extend(ledger::balance(&evidence));
    violations.extend(delivery::faults(&evidence.connections, &evidence.stream));
    Ok(Verdict { violations, summary: summary(&evidence) })
}

fn summary(evidence: &Evidence) -> String {
    let Evidence { connections, stream, history, .. } = evidence;
    let let_in = connections.iter().filter(|connection| connection.success.is_some()).count();
    let recovered = connections.iter().filter_map(|connection| connection.success.as_ref()?.recovered);
    let recovered = recovered.filter(|recovered| *recovered).count();
    let seen: usize = connections.iter().map(|connection| connection.seen.len()).sum();
    format!(
        "{} connections, {let_in} let in, {recovered} resumed, {} sessions, {} events, {seen} pushes",
        connections.len(),
        history.len(),
        stream.len()
    )
}

/// A version 4 UUID.
fn classroom(seed: u64, run: u64, number: usize) -> String {
    format!("{:08x}-{:04x}-4000-8000-{:012x}", seed & 0xffff_ffff, number, run & 0xffff_ffff_ffff)
}

/// Looks until there is nothing, or says what is still there at the end.
fn until_empty<T: IsEmpty>(limit: Duration, mut look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look()?;
        if found.is_empty() || Instant::now() >= deadline {
            return Ok(found);
        }
        thread::sleep(LOOK_EVERY);
    }
}

trait IsEmpty {
    fn is_empty(&self) -> bool;
}

impl IsEmpty for String {
    fn is_empty(&self) -> bool {
        str::is_empty(self)
    }
}

impl IsEmpty for Vec<String> {
    fn is_empty(&self) -> bool {
        <[String]>::is_empty(self)
    }
}

/// What the nodes printed, for who looks for the cause.
fn keep_outputs(cluster: &Cluster, seed: u64) -> io::Result<()> {
    let folder = Path::new("loadtest/out/chaos");
    std::fs::create_dir_all(folder)?;
    for (number, node) in cluster.nodes.iter().enumerate() {
        let file = folder.join(format!("seed-{seed}-node-{number}.log"));
        std::fs::write(&file, node.output())?;
        println!("  {}", file.display());
    }
    Ok(())
}
