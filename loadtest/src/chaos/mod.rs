//! The chaos suite: nodes, agents that come and go, faults from a seed, and a ledger that must balance.
//!
//! A seed says who does what and what breaks when. When its storm is over everybody leaves, and then the clients' own
//! logs, the stream, the history and Redis must agree: see [`ledger`] and [`delivery`]. Several clusters work at once.

mod agent;
mod cluster;
mod connection;
mod delivery;
mod faults;
mod journal;
mod ledger;
mod plan;
mod random;
mod storm;
mod stream;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use agent::{Agent, Stage};
use cluster::Cluster;
use faults::STEPS;
use journal::Journal;
use ledger::Evidence;
use plan::{CLASSROOMS, LESSONS, Plan, Setting};
use random::Random;
use rollcall_loadtest::Wire;
use storm::Aftermath;
use stream::Tape;

/// After the last fault: the agents' own visits are over then.
const CALM: Duration = Duration::from_millis(3600);
/// After that: how long a connection may stay whose session is over, or another connection's.
const SETTLING: Duration = Duration::from_secs(8);
/// How long the nodes may take to write down that everybody left, and to publish it.
const QUIESCENCE: Duration = Duration::from_secs(20);
/// How long nothing may happen before it is over.
const QUIET: Duration = Duration::from_millis(400);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const MOST_SHOWN: usize = 20;

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// The gateway to break: a debug build, for a release build has no steps to be killed at.
    #[arg(long, default_value = "target/debug/rollcall")]
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
    /// End with the first that fails.
    #[arg(long)]
    until_failure: bool,
    /// How many clusters work at once.
    #[arg(long, default_value_t = 2)]
    clusters: usize,
}

struct Verdict {
    violations: Vec<String>,
    /// What there was to judge.
    summary: String,
    struck: BTreeSet<&'static str>,
}

/// What all clusters work off, and what came of it.
struct Seeds<'a> {
    options: &'a Options,
    runtime: &'a Runtime,
    /// Those of a setting side by side, for each needs a cluster of its own.
    waiting: Mutex<VecDeque<u64>>,
    failed: Mutex<Vec<u64>>,
    struck: Mutex<BTreeSet<&'static str>>,
}

/// Runs the seeds; whether every ledger balanced.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let mut seeds: Vec<u64> = match options.seed {
        Some(seed) => vec![seed],
        None => (options.first..options.first + options.seeds).collect(),
    };
    let all = seeds.len();
    seeds.sort_by_key(|seed| (Setting::of(*seed), *seed));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = Instant::now();
    let seeds = Seeds {
        options,
        runtime: &runtime,
        waiting: Mutex::new(seeds.into()),
        failed: Mutex::default(),
        struck: Mutex::default(),
    };
    thread::scope(|scope| {
        let clusters: Vec<_> = (0..options.clusters.clamp(1, all)).map(|_| scope.spawn(|| seeds.work())).collect();
        let mut ended = clusters.into_iter().map(thread::ScopedJoinHandle::join);
        ended.try_for_each(|ended| ended.unwrap_or_else(|_| Err(io::Error::other("a cluster's thread panicked"))))
    })?;
    let failed = locked(&seeds.failed);
    println!("{} of {all} seeds balanced in {:.0?}", all - failed.len(), begun.elapsed());
    let struck = locked(&seeds.struck);
    let missing: Vec<&str> = STEPS.into_iter().filter(|step| !struck.contains(step)).collect();
    println!("nodes were killed or stopped at {} of {} steps; not at {missing:?}", struck.len(), STEPS.len());
    if !failed.is_empty() {
        println!("failed: {failed:?}");
    }
    Ok(failed.is_empty())
}

impl Seeds<'_> {
    /// One cluster's seeds, until none is left.
    fn work(&self) -> io::Result<()> {
        let mut cluster: Option<Cluster> = None;
        loop {
            if self.options.until_failure && !locked(&self.failed).is_empty() {
                return Ok(());
            }
            let Some(seed) = locked(&self.waiting).pop_front() else { return Ok(()) };
            let plan = Plan::of(seed);
            let storm = plan.storm();
            let mut ready = match cluster.take().filter(|cluster| cluster.setting == plan.setting) {
                Some(cluster) => cluster,
                None => Cluster::start(&self.options.gateway, plan.setting)?,
            };
            let started = Instant::now();
            let verdict = play(self.runtime, &mut ready, plan)?;
            locked(&self.struck).extend(&verdict.struck);
            let result = if verdict.violations.is_empty() { "balanced" } else { "FAILED" };
            let (elapsed, summary) = (started.elapsed(), &verdict.summary);
            let mut report = format!("seed {seed}: {result} in {elapsed:.1?}: {summary} [{storm}]");
            if verdict.violations.is_empty() {
                cluster = Some(ready);
            } else {
                // What is left of it shall not spoil the next one: its cluster ends here.
                locked(&self.failed).push(seed);
                let shown = verdict.violations.iter().take(MOST_SHOWN);
                shown.for_each(|violation| report.push_str(&format!("\n  {violation}")));
                if verdict.violations.len() > MOST_SHOWN {
                    report.push_str(&format!("\n  and {} more", verdict.violations.len() - MOST_SHOWN));
                }
                for file in keep_outputs(&ready, seed)? {
                    report.push_str(&format!("\n  {}", file.display()));
                }
                let gateway = self.options.gateway.display();
                report.push_str(&format!("\n  again: rollcall-loadtest chaos --gateway {gateway} --seed {seed}"));
            }
            println!("{report}");
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole after any panic.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One seed, from the first agent to the verdict.
fn play(runtime: &Runtime, cluster: &mut Cluster, plan: Plan) -> io::Result<Verdict> {
    let Plan { seed, agents, faults, .. } = plan;
    // A run of its own each time: the servers may have seen this seed before.
    let run = Random::new(seed ^ u64::from(std::process::id()) << 32).next();
    let classrooms: Vec<String> = (0..CLASSROOMS).map(|number| classroom(seed, run, number)).collect();
    let of_classroom = |number| (0..LESSONS).map(|lesson| format!("chaos-{seed}-{number}-{lesson}")).collect();
    let lessons: Vec<Vec<String>> = (0..CLASSROOMS).map(of_classroom).collect();
    let places = lessons.iter().zip(&classrooms);
    cluster.add_lessons(places.flat_map(|(lessons, classroom)| lessons.iter().map(move |id| (id, classroom))))?;
    let tape = match &cluster.servers {
        Some(servers) => Some(runtime.block_on(Tape::begin(&servers.nats.url())).map_err(io::Error::other)?),
        None => None,
    };
    let (over, told) = watch::channel(false);
    let stage = Arc::new(Stage {
        seed,
        nodes: cluster.wires.iter().map(Wire::address).collect(),
        classrooms,
        lessons,
        journal: Journal::default(),
        over: told,
    });
    let start = Instant::now();
    let mut tasks: Vec<_> =
        agents.into_iter().map(|plan| runtime.spawn(Agent::new(plan, Arc::clone(&stage)).live())).collect();
    tasks.extend(tape.as_ref().map(|tape| runtime.spawn(stream::chatter(tape.client(), Arc::clone(&stage)))));
    let Aftermath { mut violations, struck } = storm::rage(cluster, &faults, start)?;
    thread::sleep((start + CALM).saturating_duration_since(Instant::now()));
    violations.extend(until_owned(cluster, &stage)?);
    over.send_replace(true);
    runtime.block_on(async {
        for task in tasks {
            task.await.map_err(io::Error::other)?;
        }
        Ok::<_, io::Error>(())
    })?;
    let Stage { classrooms, lessons, journal, .. } = &*stage;
    let lessons = lessons.concat();
    let unfinished = until_quiet(cluster, classrooms, &lessons)?;
    let mut rooms: Vec<String> = classrooms.iter().map(|id| format!("classroom.{id}")).collect();
    rooms.extend(lessons.iter().map(|id| format!("lesson.{id}")));
    let stream = match &tape {
        Some(tape) => Some(runtime.block_on(tape.read(&rooms)).map_err(io::Error::other)?),
        None => None,
    };
    let evidence = Evidence {
        connections: journal.read(),
        stream,
        history: cluster.history(classrooms)?,
        fields: until_empty(QUIESCENCE / 4, || cluster.fields(&lessons))?,
    };
    violations.extend(unfinished.lines().map(|line| format!("not over: {line}")));
    violations.extend(ledger::balance(&evidence));
    violations.extend(match &evidence.stream {
        Some(stream) => delivery::faults(&evidence.connections, stream),
        None => delivery::faults_alone(&evidence.connections),
    });
    Ok(Verdict { violations, summary: summary(&evidence), struck })
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
        stream.as_ref().map_or(0, Vec::len)
    )
}

/// A version 4 UUID.
fn classroom(seed: u64, run: u64, number: usize) -> String {
    format!("{:08x}-{:04x}-4000-8000-{:012x}", seed & 0xffff_ffff, number, run & 0xffff_ffff_ffff)
}

/// Waits until whoever is connected owns its session: those who lost theirs to another connection, or to their node's
/// death, must have been told. Names the others.
fn until_owned(cluster: &Cluster, stage: &Stage) -> io::Result<Vec<String>> {
    let strays = until_empty(SETTLING, || {
        let present = stage.journal.present().clone();
        let owners = cluster.owners(&stage.classrooms)?;
        Ok(present.into_iter().filter(|(sid, _)| !owners.contains(sid)).collect())
    })?;
    // Who has gone since was on its way.
    let present = stage.journal.present();
    let strays = strays.into_iter().filter(|(sid, _)| present.contains_key(sid));
    Ok(strays.map(|(_, who)| format!("{who} is still connected, but the session is not its own any more")).collect())
}

/// Waits until nothing is left to be done and nothing more comes: a node that has just been let go may still have
/// clients in its queue who are long gone. Says what is not over at the end.
fn until_quiet(cluster: &Cluster, classrooms: &[String], lessons: &[String]) -> io::Result<String> {
    let deadline = Instant::now() + QUIESCENCE;
    let (mut before, mut since) = (None, Instant::now());
    loop {
        let unfinished = cluster.unfinished(classrooms, lessons)?;
        let now = (unfinished.len(), cluster.connections()?, cluster.history(classrooms)?.len());
        if before != Some(now) {
            (before, since) = (Some(now), Instant::now());
        }
        let quiet = matches!(now, (0, 0, _)) && since.elapsed() >= QUIET;
        if quiet || Instant::now() >= deadline {
            return Ok(unfinished);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until there is nothing, or says what is still there at the end.
fn until_empty<T>(limit: Duration, mut look: impl FnMut() -> io::Result<Vec<T>>) -> io::Result<Vec<T>> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look()?;
        if found.is_empty() || Instant::now() >= deadline {
            return Ok(found);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What the nodes printed, for who looks for the cause.
fn keep_outputs(cluster: &Cluster, seed: u64) -> io::Result<Vec<PathBuf>> {
    let folder = Path::new("loadtest/out/chaos");
    std::fs::create_dir_all(folder)?;
    let mut files = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let file = folder.join(format!("seed-{seed}-node-{number}.log"));
        std::fs::write(&file, node.output())?;
        files.push(file);
    }
    Ok(files)
}
