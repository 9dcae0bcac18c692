//! The chaos suite: nodes, agents that enter and leave, faults from a seed, and a ledger that must balance.
//!
//! A seed determines what each agent does, what breaks, and when. After the faults all agents leave, and then the
//! clients' logs, the stream, the history and Redis must agree: see [`ledger`] and [`delivery`]. Several clusters run
//! seeds at the same time.

mod aftermath;
mod agent;
mod authz;
mod cluster;
mod connection;
mod delivery;
mod faults;
mod journal;
mod key_servers;
mod ledger;
mod lines;
mod mishaps;
mod operator;
mod options;
mod past;
mod plan;
mod primary;
mod random;
mod rest;
mod setting;
mod storm;
mod stream;
mod victim;
mod webhook;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::watch;

use aftermath::Aftermath;
use agent::{Agent, Stage};
use cluster::Cluster;
use faults::STEPS;
use journal::Journal;
use ledger::Evidence;
use mishaps::Scene;
use operator::Kicks;
pub(crate) use options::Options;
use plan::{CLASSROOMS, LESSONS, Plan};
use random::Random;
use rollcall_loadtest::{Gateway, Wire, until_empty};
use setting::Setting;
use stream::Tape;

/// The time between the last fault and the end of the agents' visits.
const CALM: Duration = Duration::from_millis(3600);
/// The agent whose sessions the database refuses to end, in seeds with that fault.
const REFUSED: usize = 1;
const MAX_SHOWN: usize = 20;

struct Verdict {
    violations: Vec<String>,
    /// What the verdict is about, in one line.
    summary: String,
    struck: BTreeSet<&'static str>,
    mishaps: BTreeSet<&'static str>,
}

/// The seeds of all clusters, and the results.
struct Seeds<'a> {
    options: &'a Options,
    runtime: &'a Runtime,
    /// The seeds that wait. Seeds of different settings run side by side, because each setting needs a cluster of its
    /// own.
    waiting: Mutex<VecDeque<u64>>,
    failed: Mutex<Vec<u64>>,
    struck: Mutex<BTreeSet<&'static str>>,
    mishaps: Mutex<BTreeSet<&'static str>>,
}

/// Runs the seeds. Returns whether every ledger balanced.
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
        mishaps: Mutex::default(),
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
    let (planned, mishaps) = (options.mishaps(), locked(&seeds.mishaps));
    let missing: Vec<&str> = planned.iter().map(|(name, ..)| *name).filter(|name| !mishaps.contains(name)).collect();
    println!("{} of {} mishaps happened; not {missing:?}", planned.len() - missing.len(), planned.len());
    if !failed.is_empty() {
        println!("failed: {failed:?}");
    }
    Ok(failed.is_empty())
}

impl Seeds<'_> {
    /// Runs seeds on one cluster until none is left.
    fn work(&self) -> io::Result<()> {
        let mut cluster: Option<Cluster> = None;
        loop {
            if self.options.until_failure && !locked(&self.failed).is_empty() {
                return Ok(());
            }
            let Some(seed) = locked(&self.waiting).pop_front() else { return Ok(()) };
            let plan = Plan::of(seed, self.options.mishaps());
            let storm = plan.storm();
            let mut ready = match cluster.take().filter(|cluster| cluster.setting == plan.setting) {
                Some(cluster) => cluster,
                None => Cluster::start(self.options, plan.setting)?,
            };
            let started = Instant::now();
            let verdict = play(self.runtime, &mut ready, plan)?;
            locked(&self.struck).extend(&verdict.struck);
            locked(&self.mishaps).extend(&verdict.mishaps);
            let result = if verdict.violations.is_empty() { "balanced" } else { "FAILED" };
            let (elapsed, summary) = (started.elapsed(), &verdict.summary);
            let mut report = format!("seed {seed}: {result} in {elapsed:.1?}: {summary} [{storm}]");
            if verdict.violations.is_empty() {
                cluster = Some(ready).filter(Cluster::is_as_new);
            } else {
                // The cluster of a failed seed ends here, so that what is left of the seed does not spoil the next one.
                locked(&self.failed).push(seed);
                let shown = verdict.violations.iter().take(MAX_SHOWN);
                shown.for_each(|violation| report.push_str(&format!("\n  {violation}")));
                if verdict.violations.len() > MAX_SHOWN {
                    report.push_str(&format!("\n  and {} more", verdict.violations.len() - MAX_SHOWN));
                }
                for file in keep_outputs(&ready, seed)? {
                    report.push_str(&format!("\n  {}", file.display()));
                }
                report.push_str(&format!("\n  again: rollcall-loadtest chaos {}", self.options.of_seed(seed)));
            }
            println!("{report}");
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each of these values is consistent at any time, so a panic with the lock held does no harm.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one seed, from the first agent to the verdict.
fn play(runtime: &Runtime, cluster: &mut Cluster, plan: Plan) -> io::Result<Verdict> {
    let Plan { seed, agents, faults, .. } = plan;
    // Each run has classrooms of its own, because the servers may have run this seed before.
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
    let (settle, settled) = watch::channel(false);
    let stage = Arc::new(Stage {
        seed,
        nodes: cluster.wires.iter().map(Wire::address).collect(),
        admins: cluster.nodes.iter().map(Gateway::admin).collect(),
        classrooms,
        lessons,
        journal: Journal::default(),
        over: told,
        settled,
    });
    let start = Instant::now();
    let mut tasks: Vec<_> =
        agents.into_iter().map(|plan| runtime.spawn(Agent::new(plan, Arc::clone(&stage)).live())).collect();
    tasks.extend(tape.as_ref().map(|tape| runtime.spawn(stream::chatter(tape.client(), Arc::clone(&stage)))));
    let scene = Scene {
        runtime,
        tape: tape.as_ref(),
        classrooms: &stage.classrooms,
        user: format!("s{seed}-a{REFUSED}"),
        starts: Mutex::default(),
    };
    let receiver = Arc::clone(&cluster.receiver);
    let (aftermath, troubled, kicks) = thread::scope(|scope| {
        let trouble = scope.spawn(|| webhook::trouble(&receiver, seed, &stage.classrooms, start));
        let kicks = scope.spawn(|| operator::act(&stage));
        let aftermath = storm::rage(cluster, &faults, &scene, start);
        (aftermath, joined(trouble), joined(kicks))
    });
    troubled?;
    let kicks = kicks?;
    let mut aftermath = aftermath?;
    let mut violations = std::mem::take(&mut aftermath.violations);
    thread::sleep((start + CALM).saturating_duration_since(Instant::now()));
    settle.send_replace(true);
    violations.extend(rest::until_owned(cluster, &stage)?);
    violations.extend(rest::until_whole(cluster, &stage, &aftermath)?);
    violations.extend(rest::until_told(cluster, &stage, &aftermath)?);
    violations.extend(rest::states_that_are_not_the_last(cluster, &stage, aftermath.loss.doubtful)?);
    over.send_replace(true);
    runtime.block_on(async {
        for task in tasks {
            task.await.map_err(io::Error::other)?;
        }
        Ok::<_, io::Error>(())
    })?;
    let Stage { classrooms, lessons, journal, .. } = &*stage;
    let lessons = lessons.concat();
    let unfinished = rest::until_quiet(cluster, classrooms, &lessons)?;
    let mut rooms: Vec<String> = classrooms.iter().map(|id| format!("classroom.{id}")).collect();
    rooms.extend(lessons.iter().map(|id| format!("lesson.{id}")));
    let stream = match &tape {
        Some(tape) => Some(runtime.block_on(tape.read(&rooms)).map_err(io::Error::other)?),
        None => None,
    };
    let connections = journal.read();
    let forgotten = aftermath.forgotten(&connections);
    let fields = until_empty(rest::QUIESCENCE / 4, || {
        let fields = cluster.fields(&lessons)?.into_iter();
        Ok(fields.filter(|field| !aftermath.forgets_field(field, &connections)).collect())
    })?;
    let Aftermath { struck, mishaps, loss, .. } = aftermath;
    let evidence = Evidence {
        connections,
        stream,
        history: cluster.history(classrooms)?,
        lost: loss.sessions,
        gone: loss.gone,
        doubtful: loss.doubtful,
        forgotten,
        fields,
    };
    cluster.remove_poison()?;
    violations.extend(unfinished.lines().map(|line| format!("not over: {line}")));
    violations.extend(ledger::balance(&evidence));
    violations.extend(operator::faults(&kicks, &evidence));
    violations.extend(until_empty(rest::QUIESCENCE, || {
        Ok(webhook::faults(&receiver.ledger(), evidence.stream.as_ref(), &evidence.history, classrooms))
    })?);
    violations.extend(match &evidence.stream {
        Some(stream) => delivery::faults(&evidence.connections, stream),
        None => delivery::faults_alone(&evidence.connections),
    });
    Ok(Verdict { violations, summary: summary(&evidence, &kicks), struck, mishaps })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the storm panicked")))
}

fn summary(evidence: &Evidence, kicks: &Kicks) -> String {
    let Evidence { connections, stream, history, .. } = evidence;
    let let_in = connections.iter().filter(|connection| connection.success.is_some()).count();
    let recovered = connections.iter().filter_map(|connection| connection.success.as_ref()?.recovered);
    let recovered = recovered.filter(|recovered| *recovered).count();
    let seen: usize = connections.iter().map(|connection| connection.seen.len()).sum();
    let told = connections.iter().filter(|connection| connection.was_kicked()).count();
    format!(
        "{} connections, {let_in} let in, {recovered} resumed, {} sessions, {} kicked and {told} told, {} events, \
         {seen} pushes",
        connections.len(),
        history.len(),
        kicks.ended.len(),
        stream.as_ref().map_or(0, |stream| stream.messages.len())
    )
}

/// Returns a version 4 UUID.
fn classroom(seed: u64, run: u64, number: usize) -> String {
    format!("{:08x}-{:04x}-4000-8000-{:012x}", seed & 0xffff_ffff, number, run & 0xffff_ffff_ffff)
}

/// Copies the output of the nodes, from which the cause can be found.
fn keep_outputs(cluster: &Cluster, seed: u64) -> io::Result<Vec<PathBuf>> {
    let folder = Path::new("loadtest/out/chaos");
    std::fs::create_dir_all(folder)?;
    let mut files = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let file = folder.join(format!("seed-{seed}-node-{number}.log"));
        std::fs::write(&file, node.all_output())?;
        files.push(file);
    }
    Ok(files)
}
