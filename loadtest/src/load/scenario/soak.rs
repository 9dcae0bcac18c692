//! Many nodes on one machine hold joined agents for a time: no agent may be lost, and the memory is measured by part.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::crew::Crew;
use crate::load::order::{Crowd, Goal, Pace};
use crate::load::peers;
use crate::load::proc;
use crate::load::results::Limit;
use crate::load::stage::Stage;
use crate::load::system::{Kind, System};

const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The number of nodes, and how long they hold their agents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Soak {
    pub(crate) nodes: usize,
    pub(crate) hold: Duration,
    /// Joins in a second while the nodes fill.
    pub(crate) rate: f64,
}

pub(crate) fn run(stage: &mut Stage, soak: Soak) -> io::Result<()> {
    let crowds: Vec<Crowd> = (0..soak.nodes).map(|node| Crowd::new(50 + node as u16, stage.agents, 30)).collect();
    let free = proc::machine_memory("MemAvailable")?;
    let system = stage.start(Kind::Real, soak.nodes, &crowds)?;
    let System::Gateways { gateways, backends, .. } = &system else {
        return Err(io::Error::other("a soak needs gateways"));
    };
    let mut crew = Crew::of(soak.nodes)?;
    let targets = gateways.iter().map(|gateway| gateway.address());
    let each: Vec<_> = crowds.into_iter().zip(targets).collect();
    let band = crew.prepare_each(&each)?;
    let wave = crew.arrive(&band, Pace::Rate(soak.rate), Goal::Joined)?;
    let end = Instant::now() + soak.hold;
    while Instant::now() < end {
        thread::sleep(LOOK_EVERY.min(end - Instant::now()));
        eprint!("\r  {} present", crew.count()?.present);
    }
    let tally = crew.count()?;
    let lost: u64 = tally.lost.values().sum();

    let mut parts = Vec::new();
    let sum = |pids: Vec<u32>| pids.into_iter().map(proc::family_pss).sum::<io::Result<u64>>();
    parts.push(("the nodes", sum(gateways.iter().map(|gateway| gateway.pid()).collect())?));
    if let Some(backends) = backends {
        parts.push(("PostgreSQL", sum(vec![backends.postgres.pid()])?));
        parts.push(("Redis", sum(vec![backends.redis.pid()])?));
        parts.push(("NATS", sum(vec![backends.nats.pid()])?));
    }
    parts.push(("the generator", sum(crew.pids())?));
    let processes: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let used = free.saturating_sub(proc::machine_memory("MemAvailable")?);
    parts.push(("the kernel (both ends of every socket)", used.saturating_sub(processes)));

    let name = format!("{} agents on {} nodes", band.agents(), soak.nodes);
    let mut note = stage.note("soak", Kind::Real);
    note.failures(&name, &wave);
    note.figure(
        &format!("{name}: {}", peers::PRESENT),
        tally.present as f64,
        "",
        Some(Limit::AtLeast(band.agents() as f64)),
    );
    note.figure("connections lost while held", lost as f64, "", Some(Limit::AtMost(0.0)));
    for (part, bytes) in parts {
        note.figure(&format!("memory of {part}"), bytes as f64 / proc::MIB, "MiB", None);
        note.figure(&format!("memory of {part}, an agent"), bytes as f64 / band.agents() as f64, "bytes", None);
    }
    Ok(())
}
