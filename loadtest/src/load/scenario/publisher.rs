//! Measures a handler that publishes, README's `raise_hand`: how many calls per second one gateway handles if each
//! event goes to 50 agents, and how long the last agent waits after the caller's frame if there are fewer calls.
//!
//! Callers and listeners need the same two processor cores, and with fewer events at the same time each event costs
//! more. So half of the highest rate is more than half of the load. `busy` shows how much of the machine is in use.

use std::io;
use std::time::Duration;

use super::callers::{Callers, NO_RATE_LIMIT, ROOMS, SECONDS};
use crate::load::crew::{Band, Crew};
use crate::load::order::{Crowd, Listen};
use crate::load::proc::{busy_seconds, cpu_seconds};
use crate::load::results::Limit;
use crate::load::stage::{Note, Stage, latency_ms};
use crate::load::system::{Kind, System};

const ROOM: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);
const PARTS: [(&str, f64); 3] = [("half", 2.0), ("a quarter", 4.0), ("an eighth", 8.0)];

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.gateways() {
        measure(stage, kind)?;
    }
    Ok(())
}

/// Returns a crowd of agents that do not resume, and a crowd of agents that do.
pub(super) fn crowds() -> [Crowd; 2] {
    [Crowd::guests(33, ROOM * ROOMS, ROOM), Crowd::new(34, ROOM * ROOMS, ROOM).resuming()]
}

fn measure(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let settings = NO_RATE_LIMIT.map(|(name, value)| (name, value.to_owned()));
    let crowds = crowds();
    let system = stage.start_example("raise_hand", kind, &crowds, &settings)?;
    for (crowd, whom, limit) in [(&crowds[0], "", 10.0), (&crowds[1], ", who resume", 35.0)] {
        let mut listeners = Listeners::enter(&system, crowd)?;
        let mut callers = Callers::enter(&system, crowd)?;
        let told = listeners.count(|| callers.as_fast_as_they_go("raise_hand"))?;
        let rate = told as f64 / SECONDS;
        let mut note = stage.note("publisher", kind);
        note.figure(&format!("calls that publish to 50{whom}"), rate, "/s", None);
        for (part, divisor) in PARTS {
            let call = || callers.paced("raise_hand", rate / divisor);
            listeners.last_of_50(&mut note, &system, call, &format!("{part}{whom}"), Some(Limit::AtMost(limit)))?;
        }
        listeners.leave()?;
        drop(callers);
        system.wait_until_empty()?;
    }
    Ok(())
}

/// The agents of a crowd, each in a room with 49 others.
pub(super) struct Listeners {
    crew: Crew,
    band: Band,
}

impl Listeners {
    pub(super) fn enter(system: &System, crowd: &Crowd) -> io::Result<Self> {
        let mut crew = Crew::for_agents(crowd.agents)?;
        let band = crew.prepare(crowd, system.address())?;
        crew.gather(&band)?;
        Ok(Self { crew, band })
    }

    /// Lets events be published that all agents get. Returns how many events were published.
    pub(super) fn count(&mut self, publish: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        self.crew.listen(Listen::Count)?;
        let told = publish()?;
        self.crew.pushes(&self.band, (told / ROOMS) as f64, LIMIT, || Ok(()))?;
        Ok(told)
    }

    /// Lets events be published. Records how long the last agent of a room waits for each, and how busy the processors
    /// are meanwhile.
    pub(super) fn last_of_50(
        &mut self,
        note: &mut Note<'_>,
        system: &System,
        publish: impl FnOnce() -> io::Result<usize>,
        part: &str,
        limit: Option<Limit>,
    ) -> io::Result<()> {
        let gateway = || cpu_seconds(system.pid());
        let before = (gateway()?, busy_seconds()?);
        self.crew.listen(Listen::LastOf(ROOM as u32))?;
        let told = publish()?;
        let used = (gateway()? - before.0, busy_seconds()? - before.1);
        let all = self.crew.pushes(&self.band, (told / ROOMS) as f64, LIMIT, || Ok(()))?;
        let heard = self.crew.count()?;
        let lost = if all.is_some() { 0.0 } else { (told * ROOM) as f64 - heard.pushes as f64 };
        let name = format!("frame to the last of 50, at {part}");
        note.figure(&format!("{name}: p50"), latency_ms(&heard.latencies, 0.5), "ms", None);
        note.figure(&format!("{name}: p99"), latency_ms(&heard.latencies, 0.99), "ms", limit);
        note.figure(&format!("{name}: lost"), lost, "", Some(Limit::AtMost(0.0)));
        note.figure(&format!("{name}: the gateway, of one core"), used.0 / SECONDS * 100.0, "%", None);
        note.figure(&format!("{name}: busy, of all cores"), used.1 / SECONDS / cores() * 100.0, "%", None);
        Ok(())
    }

    pub(super) fn leave(mut self) -> io::Result<()> {
        self.crew.leave(&self.band)
    }
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}
