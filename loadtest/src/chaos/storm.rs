//! Inflicts the faults of a plan on a cluster at their times.
//!
//! Invariant: when a storm is over, everything runs again.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rollcall_loadtest::servers::Nats;
use rollcall_loadtest::{Gateway, Way, Wire, retry};

use super::aftermath::Aftermath;
use super::cluster::{Cluster, DRAIN, FAILPOINT, Servers};
use super::faults::{self, Deed, Fault, Place, Target};
use super::journal::locked;
use super::key_servers::KeyServers;
use super::lines::Lines;
use super::mishaps::Scene;
use super::primary::Primary;
use super::victim::Victim;

/// How long a node is started again and again: it ends if its servers are down.
const RESTART_LIMIT: Duration = Duration::from_secs(30);
/// How long a node may take to reach the step at which a fault is to happen.
const STEP_LIMIT: Duration = Duration::from_millis(2500);
/// The delay in each direction on a slow wire.
const SLOW: Duration = Duration::from_millis(600);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The bytes that still go through a wire before it stalls: some requests.
const STALL_AFTER: usize = 4096;
/// A node that is stopped for longer than this has lost its sessions and its shards of the outbox to others.
const TAKEN_OVER: Duration = Duration::from_millis(2500);
/// How long a drain may take beyond its deadline, for its last requests on a busy machine.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Inflicts all faults, and returns when the last one has ended.
pub(super) fn rage(
    cluster: &mut Cluster,
    faults: &[Fault],
    scene: &Scene<'_>,
    start: Instant,
) -> io::Result<Aftermath> {
    let Cluster { nodes, wires, lines, servers, .. } = cluster;
    let lines = &*lines;
    let of = |target: Target| faults.iter().filter(move |fault| fault.target == target);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, node) in nodes.iter_mut().enumerate() {
            threads.push(scope.spawn(move || endure_node((number, node), of(Target::Node(number)), scene, start)));
        }
        if let Some(Servers { primary, keys, nats, authorization, .. }) = servers {
            threads.push(scope.spawn(|| endure_postgres(primary, lines, of(Target::Postgres), scene, start)));
            let of_keys = |keys: &mut KeyServers, deed, lasts| keys.mishap(scene, deed, lasts);
            threads.push(scope.spawn(move || endure(keys, of(Target::Redis), of_keys, start)));
            let of_stream = |nats: &mut Nats, deed, lasts| {
                let name = scene.strike_stream(deed, lasts)?;
                // A server of version 2.9 crashes if a node reads from a stream that is just being made.
                if matches!(deed, Deed::Delete | Deed::Remake) && !nats.is_running()? {
                    start_again(nats)?;
                }
                Ok(name)
            };
            threads.push(scope.spawn(move || endure(nats, of(Target::Nats), of_stream, start)));
            threads.push(scope.spawn(move || bend(authorization, of(Target::Authorization), start)));
        }
        for (number, wire) in wires.iter().enumerate() {
            threads.push(scope.spawn(move || bend(wire, of(Target::Wire(number)), start)));
        }
        for (number, Lines { postgres, redis, nats }) in lines.iter().enumerate() {
            for (place, line) in [(Place::Postgres, postgres), (Place::Redis, redis), (Place::Nats, nats)] {
                threads.push(scope.spawn(move || bend(line, of(Target::Line(number, place)), start)));
            }
        }
        let mut all = Aftermath::default();
        for thread in threads {
            let one = thread.join().unwrap_or_else(|_| Err(io::Error::other("a fault panicked")))?;
            all.add(one);
        }
        Ok(all)
    })
}

/// Inflicts one node's faults, one after the other. A fault that is due during another one follows it.
fn endure_node<'a>(
    (number, node): (usize, &mut Gateway),
    faults: impl Iterator<Item = &'a Fault>,
    scene: &Scene<'_>,
    start: Instant,
) -> io::Result<Aftermath> {
    let start_again = |node: &mut Gateway| {
        let _starting = locked(&scene.starts);
        start_again(node)
    };
    let mut aftermath = Aftermath::default();
    for Fault { at, deed, lasts, .. } in faults {
        sleep_until(start + *at);
        match *deed {
            Deed::Drain => {
                aftermath.violations.extend(drain(node)?.map(|what| format!("node {number} {what}")));
                aftermath.ends.push((number, Instant::now()));
                thread::sleep(*lasts);
                start_again(node)?;
            }
            Deed::Kill => {
                node.kill()?;
                aftermath.ends.push((number, Instant::now()));
                thread::sleep(*lasts);
                start_again(node)?;
            }
            Deed::KillAt(step) if strike(node, step, "SIGKILL")? => {
                aftermath.ends.push((number, Instant::now()));
                aftermath.struck.insert(step);
                thread::sleep(*lasts);
                start_again(node)?;
            }
            Deed::PauseAt(step) if strike(node, step, "SIGSTOP")? => {
                aftermath.struck.insert(step);
                aftermath.mishaps.extend((step == "outbox read" && *lasts > TAKEN_OVER).then_some("publisher paused"));
                thread::sleep(*lasts);
                node.resume()?;
            }
            // The node did not reach the step in time.
            Deed::KillAt(_) | Deed::PauseAt(_) => {}
            other => suffer(node, other, *lasts)?,
        }
    }
    Ok(aftermath)
}

/// Inflicts one server's faults in the same way as those of a node. `mishap` inflicts the faults that do not concern
/// the process, and returns their names.
fn endure<'a, V: Victim>(
    victim: &mut V,
    faults: impl Iterator<Item = &'a Fault>,
    mishap: impl Fn(&mut V, Deed, Duration) -> io::Result<Option<&'static str>>,
    start: Instant,
) -> io::Result<Aftermath> {
    let mut aftermath = Aftermath::default();
    for Fault { at, deed, lasts, .. } in faults {
        sleep_until(start + *at);
        match mishap(victim, *deed, *lasts)? {
            Some(name) => drop(aftermath.mishaps.insert(name)),
            None => suffer(victim, *deed, *lasts)?,
        }
    }
    Ok(aftermath)
}

/// Inflicts the database's faults. Another server may be the database afterwards. That server has no faults.
fn endure_postgres<'a>(
    primary: &mut Primary,
    lines: &[Lines],
    faults: impl Iterator<Item = &'a Fault>,
    scene: &Scene<'_>,
    start: Instant,
) -> io::Result<Aftermath> {
    let mut aftermath = Aftermath::default();
    for Fault { at, deed, lasts, .. } in faults {
        if primary.has_failed_over() {
            break;
        }
        sleep_until(start + *at);
        if *deed == Deed::PutBack {
            aftermath.loss = primary.fail_over(lines, *lasts)?;
            aftermath.mishaps.insert("postgres put back");
        } else if let Some(name) = scene.strike_rows(primary.database(), *deed, *lasts)? {
            aftermath.mishaps.insert(name);
        } else {
            suffer(primary.server(), *deed, *lasts)?;
        }
    }
    Ok(aftermath)
}

fn suffer(victim: &mut dyn Victim, deed: Deed, lasts: Duration) -> io::Result<()> {
    if deed == Deed::Kill {
        victim.kill()?;
        thread::sleep(lasts);
        start_again(victim)
    } else {
        victim.pause()?;
        thread::sleep(lasts);
        victim.resume()
    }
}

fn start_again(victim: &mut dyn Victim) -> io::Result<()> {
    retry(RESTART_LIMIT, || victim.restart())
}

/// Drains the node with SIGTERM, and returns what it did wrong.
fn drain(node: &mut Gateway) -> io::Result<Option<String>> {
    node.terminate()?;
    match node.wait(DRAIN + DRAIN_SLACK) {
        Ok(status) if status.success() => Ok(None),
        Ok(status) => Ok(Some(format!("ended its drain with {status}"))),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let threads = threads(node.pid())?.join(", ");
            Ok(Some(format!("still runs {:?} after SIGTERM: {threads}", DRAIN + DRAIN_SLACK)))
        }
        Err(error) => Err(error),
    }
}

/// Returns what each thread of a process does: R runs or waits for a processor, S waits for something, D for a disk.
fn threads(process: u32) -> io::Result<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
    let one = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        Some(format!("{name} {}", rest.split_whitespace().next()?))
    };
    Ok(tasks.filter_map(|task| one(task.ok()?)).collect())
}

/// Arms a failpoint, and waits until the node reaches it. Returns true if the node reached it.
fn strike(node: &Gateway, step: &str, signal: &str) -> io::Result<bool> {
    let armed = node.folder().join(FAILPOINT);
    let struck = armed.with_extension("struck");
    let written = node.folder().join("failpoint.new");
    fs::write(&written, format!("{step} {signal}"))?;
    fs::rename(&written, &armed)?;
    let deadline = Instant::now() + STEP_LIMIT;
    while !struck.exists() {
        // If the file can still be removed, the node has not read it, and no longer can.
        if Instant::now() >= deadline && fs::remove_file(&armed).is_ok() {
            return Ok(false);
        }
        thread::sleep(LOOK_EVERY);
    }
    fs::remove_file(struck)?;
    Ok(true)
}

fn bend<'a>(wire: &Wire, faults: impl Iterator<Item = &'a Fault>, start: Instant) -> io::Result<Aftermath> {
    let mut aftermath = Aftermath::default();
    for Fault { at, target, deed, lasts } in faults {
        sleep_until(start + *at);
        match deed {
            Deed::Hold => wire.hold(Way::Both),
            Deed::HoldUp => wire.hold(Way::Up),
            Deed::HoldDown => wire.hold(Way::Down),
            Deed::Slow => wire.delay(SLOW),
            Deed::Away => wire.close(),
            Deed::HalfOpen => wire.lose_clients(),
            Deed::Stall => wire.stall_after(STALL_AFTER),
            _ => wire.cut(),
        }
        thread::sleep(*lasts);
        if *deed == Deed::Stall {
            // The bytes that the wire held are lost with its connections.
            wire.cut();
        }
        let named =
            faults::mishaps(true).iter().find(|(_, of, named)| named == deed && (of == target || *deed == Deed::Stall));
        aftermath.mishaps.extend(named.map(|(name, ..)| *name));
        wire.clear();
    }
    Ok(aftermath)
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
