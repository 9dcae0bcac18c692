//! What all scenarios share: the number of agents, the floor's figures, and the results.

use std::io;
use std::path::PathBuf;

use rollcall_loadtest::servers::PostgresOptions;

use super::clock::SECOND;
use super::crew::{Band, Crew};
use super::order::{Arrived, Crowd, Goal, Pace};
use super::results::{Figure, Limit, Plot, Results};
use super::rounds::Rounds;
use super::system::{Kind, System};

/// How many agents connect at once when the highest rate is measured.
pub(crate) const WINDOW: usize = 1000;
/// The number of waves, of which the middle one counts.
pub(crate) const WAVES: usize = 3;

/// The floor's rates, measured in the same run as the figures that are compared with them.
#[derive(Debug, Clone)]
pub(crate) struct FloorRates {
    /// The number of upgrades with a message and its ack in a second.
    pub(crate) connects: f64,
    pub(crate) sends: Rounds,
}

pub(crate) struct Stage {
    /// The gateway's binary. Without it only the floor can be measured.
    pub(crate) gateway: Option<PathBuf>,
    pub(crate) kinds: Vec<Kind>,
    /// The maximum number of agents at once.
    pub(crate) agents: usize,
    pub(crate) results: Results,
    /// The floor's rates. `None` before they are measured.
    pub(super) floor: Option<FloorRates>,
}

impl Stage {
    pub(crate) fn new(gateway: Option<PathBuf>, kinds: Vec<Kind>, agents: usize) -> Self {
        Self { gateway, kinds, agents, results: Results { machine: machine(), ..Results::default() }, floor: None }
    }

    /// Returns the kinds of gateways to measure, for a scenario that the floor cannot run.
    pub(crate) fn gateways(&self) -> Vec<Kind> {
        self.kinds.iter().copied().filter(|kind| *kind != Kind::Floor).collect()
    }

    /// Starts gateways for a scenario. Before, it waits until data of earlier systems is on the disk, so that its
    /// writing slows down no measurement.
    pub(crate) fn start(&self, kind: Kind, count: usize, crowds: &[Crowd]) -> io::Result<System> {
        self.start_with(kind, count, crowds, &[])
    }

    /// Starts gateways with further settings.
    pub(crate) fn start_with(
        &self,
        kind: Kind,
        count: usize,
        crowds: &[Crowd],
        settings: &[(&str, String)],
    ) -> io::Result<System> {
        self.start_on(kind, count, crowds, settings, PostgresOptions::default())
    }

    /// Starts one of the examples, which cargo puts beside the gateway's binary.
    pub(crate) fn start_example(
        &self,
        name: &str,
        kind: Kind,
        crowds: &[Crowd],
        settings: &[(&str, String)],
    ) -> io::Result<System> {
        let binary = self.gateway()?.with_file_name("examples").join(name);
        if !binary.exists() {
            let missing = format!("no {}: run cargo build --release -p rollcall --example {name}", binary.display());
            return Err(io::Error::other(missing));
        }
        nix::unistd::sync();
        System::gateways_on(&binary, kind, 1, crowds, settings, PostgresOptions::default())
    }

    /// Starts gateways as [`Stage::start_with`] does, with such a PostgreSQL.
    pub(crate) fn start_on(
        &self,
        kind: Kind,
        count: usize,
        crowds: &[Crowd],
        settings: &[(&str, String)],
        postgres: PostgresOptions,
    ) -> io::Result<System> {
        nix::unistd::sync();
        System::gateways_on(&self.gateway()?, kind, count, crowds, settings, postgres)
    }

    fn gateway(&self) -> io::Result<PathBuf> {
        self.gateway.as_ref().ok_or_else(|| io::Error::other("--gateway PATH is missing"))?.canonicalize()
    }

    pub(crate) fn note(&mut self, scenario: &str, system: Kind) -> Note<'_> {
        Note { stage: self, scenario: scenario.to_owned(), system }
    }
}

/// Records the figures of one scenario on one system.
pub(crate) struct Note<'a> {
    stage: &'a mut Stage,
    scenario: String,
    system: Kind,
}

impl Note<'_> {
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, limit: Option<Limit>) {
        self.beside_floor(name, value, unit, None, limit);
    }

    pub(crate) fn beside_floor(
        &mut self,
        name: &str,
        value: f64,
        unit: &str,
        floor: Option<f64>,
        limit: Option<Limit>,
    ) {
        let figure = Figure {
            scenario: self.scenario.clone(),
            system: self.system,
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            floor,
            limit,
            earlier: false,
        };
        let cells = super::results::row(&figure);
        eprintln!("\r  {}: {} {} {}", cells[1], cells[2], cells[3], cells[6]);
        self.stage.results.figures.push(figure);
    }

    /// Prints the agents that did not arrive. There should be none.
    pub(crate) fn failures(&mut self, name: &str, arrived: &Arrived) {
        let failed: u64 = arrived.failures.values().sum();
        for (reason, count) in &arrived.failures {
            eprintln!("\r  {count} x {reason}");
        }
        self.figure(&format!("{name}: refused or lost"), failed as f64, "", Some(Limit::AtMost(0.0)));
    }

    pub(crate) fn plot(&mut self, title: &str, x: &str, y: &str, curves: Vec<(String, Vec<(f64, f64)>)>) {
        let (scenario, title) = (self.scenario.clone(), format!("{title}, {}", self.system));
        let plot = Plot { scenario, system: self.system, title, x: x.to_owned(), y: y.to_owned(), curves };
        self.stage.results.plots.push(plot);
    }
}

/// Lets waves of agents arrive as fast as possible. Returns the rate of the middle wave, and the last wave, whose
/// agents stay connected.
pub(crate) fn fastest(crew: &mut Crew, system: &System, band: &Band, goal: Goal) -> io::Result<(f64, Arrived)> {
    let mut rates = Vec::new();
    loop {
        let arrived = crew.arrive(band, Pace::Window(WINDOW), goal)?;
        rates.push(arrived.rate());
        if rates.len() == WAVES || !arrived.failures.is_empty() {
            rates.sort_by(f64::total_cmp);
            return Ok((rates[rates.len() / 2], arrived));
        }
        crew.leave(band)?;
        system.wait_until_empty()?;
    }
}

impl Arrived {
    /// Returns the number of arrivals in a second, from the first to the last.
    pub(crate) fn rate(&self) -> f64 {
        let span = self.ended.saturating_sub(self.began).max(1);
        self.samples.len() as f64 * SECOND as f64 / span as f64
    }

    /// Returns the latency in milliseconds that this share of the arrivals kept.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let mut latencies: Vec<u32> = self.samples.iter().map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        let index = (latencies.len() as f64 * share).ceil() as usize;
        let found = latencies.get(index.saturating_sub(1));
        found.map_or(f64::INFINITY, |micros| f64::from(*micros) / 1000.0)
    }
}

/// Returns the latency in milliseconds that this share of the measured pushes kept.
pub(crate) fn latency_ms(latencies: &[(u64, u64)], share: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let all: u64 = sorted.iter().map(|(_, count)| count).sum();
    let wanted = (all as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (latency, count) in sorted {
        seen += count;
        if seen >= wanted {
            return latency as f64 / 1_000_000.0;
        }
    }
    f64::INFINITY
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, the generator on the same ones")
}
