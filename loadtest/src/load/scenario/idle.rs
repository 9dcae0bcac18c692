//! The memory of a joined connection while nothing happens, and whether it is freed afterwards.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::crew::{Band, Crew};
use crate::load::order::Crowd;
use crate::load::peers;
use crate::load::proc;
use crate::load::results::Limit;
use crate::load::stage::Stage;
use crate::load::system::{Kind, System};

const FEW: usize = 5000;
/// The time in which each connection gets one ping.
const PING_ROUND: Duration = Duration::from_secs(30);
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(30);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Memory is at rest if it changes by less than this many bytes between two samples.
const AT_REST: u64 = 64 * 1024;

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.kinds.clone() {
        measure(stage, kind)?;
    }
    Ok(())
}

fn measure(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let few = Crowd::new(20, FEW.min(stage.agents / 2), 30);
    let rest = few.then(stage.agents - few.agents);
    let system = stage.start(kind, 1, &[few.clone(), rest.clone()])?;
    let mut crew = Crew::for_agents(stage.agents)?;
    let first = crew.prepare(&few, system.address())?;
    let second = crew.prepare(&rest, system.address())?;

    let before = system.pss()?;
    let mut curve = vec![(0.0, before as f64 / proc::MIB)];
    let mut sizes = Vec::new();
    for (band, present) in [(&first, few.agents), (&second, stage.agents)] {
        crew.gather(band)?;
        sizes.push(at_rest(&system)?);
        curve.push((present as f64, sizes[sizes.len() - 1] as f64 / proc::MIB));
    }
    let slope = (sizes[1] as f64 - sizes[0] as f64) / rest.agents as f64;

    let cpu = proc::cpu_seconds(system.pid())?;
    thread::sleep(PING_ROUND);
    let busy = (proc::cpu_seconds(system.pid())? - cpu) / PING_ROUND.as_secs_f64() * 100.0;
    let lost: u64 = crew.count()?.lost.values().sum();

    let mut note = stage.note("idle", kind);
    note.figure(peers::MEMORY, slope, "bytes", Some(Limit::AtMost(1024.0)));
    note.figure(peers::IDLE, busy, "%", Some(Limit::AtMost(1.0)));
    note.figure("idle connections lost", lost as f64, "", Some(Limit::AtMost(0.0)));
    note.plot("Memory of the gateway (PSS)", "joined connections", "MiB", vec![("PSS".to_owned(), curve)]);

    let all = [&first, &second];
    let after_first = leave_all(&mut crew, &system, &all)?;
    for band in all {
        crew.gather(band)?;
    }
    for band in all {
        crew.leave(band)?;
    }
    system.wait_until_empty()?;
    let deadline = Instant::now() + GIVE_BACK_LIMIT;
    let mut after_second = system.pss()?;
    while after_second as f64 > after_first as f64 * 1.1 && Instant::now() < deadline {
        thread::sleep(SAMPLE_EVERY);
        after_second = system.pss()?;
    }
    let growth = after_second as f64 / after_first as f64 * 100.0;
    let mut note = stage.note("idle", kind);
    note.figure("memory after one wave has left", after_first as f64 / proc::MIB, "MiB", None);
    note.figure("after a second one, of the first", growth, "%", Some(Limit::AtMost(110.0)));
    Ok(())
}

fn leave_all(crew: &mut Crew, system: &System, bands: &[&Band]) -> io::Result<u64> {
    for band in bands {
        crew.leave(band)?;
    }
    system.wait_until_empty()?;
    at_rest(system)
}

/// Returns the memory once it is at rest, or after half a ping round.
pub(super) fn at_rest(system: &System) -> io::Result<u64> {
    let deadline = Instant::now() + PING_ROUND / 2;
    let mut last = system.pss()?;
    loop {
        thread::sleep(SAMPLE_EVERY);
        let next = system.pss()?;
        if next.abs_diff(last) < AT_REST || Instant::now() > deadline {
            return Ok(next);
        }
        last = next;
    }
}
