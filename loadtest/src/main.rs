//! `rollcall-loadtest`: the load scenarios, the floor, the report, and the chaos suite.

mod chaos;
mod load;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use load::results::Results;
use load::scenario::{self, soak::Soak, webhook::Outage};
use load::stage::Stage;
use load::system::Kind;
use rollcall_loadtest::race::Race;

const RESULTS: &str = "results.json";
const REPORT: &str = "report.html";

/// Measures a Rollcall gateway beside a bare epoll loop.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What a bare epoll loop does with the same requests
    Floor(Options),
    /// Durable joins: rates and latency, a thousand agents into one room, and joins beside 10,000 idle agents
    Join(Options),
    /// Memory and processor time of idle connections.
    Idle(Options),
    /// Fan-out into big and small rooms, and slow readers.
    Fanout(Options),
    /// Functions over HTTP: calls in a second, and how long the last of 50 agents waits
    Functions(Options),
    /// A handler that publishes: calls per second, and the wait of the last of 50 agents
    Publisher(Options),
    /// A thousand agents enter one room, without and with a roster for each
    Rosters(Options),
    /// A million sessions in one classroom's history: reading them, and deleting them while agents join
    Attendance(Options),
    /// The webhook's receiver is down, and nodes break: no event may be lost or come out of order
    Webhook(WebhookOptions),
    /// How much a flood of pings slows down classmates
    Hostile(Options),
    /// Socket.IO, compared with `/ws`
    Socketio(Options),
    /// All agents come back after a kill -9
    Reconnect(Options),
    /// What 20 open consoles cost a full node
    Consoles(Options),
    /// Several full nodes on one machine, held for some time
    Soak(SoakOptions),
    /// Rates, and the cost for Postgres, with one node and with many
    Scale(ScaleOptions),
    /// All of the above but `scale`, with a short outage of the webhook and a short soak
    Bench(SoakOptions),
    /// Pairs that enter at once on several nodes: list and pushes must give every client a whole view
    Race(RaceOptions),
    /// Three nodes, faults from seeds, and a ledger that must balance
    Chaos(chaos::Options),
    /// Writes the HTML report of earlier results again
    Report {
        /// The folder of the results
        #[arg(long, default_value = "loadtest/out")]
        out: PathBuf,
    },
    #[command(hide = true)]
    Worker,
    #[command(hide = true)]
    FloorServer,
}

#[derive(Args)]
struct Options {
    /// The gateway to measure
    #[arg(long, default_value = "target/release/rollcall")]
    gateway: PathBuf,
    /// The backends of the gateway
    #[arg(long, value_delimiter = ',', default_value = "embedded,real")]
    backends: Vec<Kind>,
    /// The maximum number of agents at once on each node
    #[arg(long, default_value_t = 18_000)]
    agents: usize,
    /// The folder for the results and the report
    #[arg(long, default_value = "loadtest/out")]
    out: PathBuf,
}

#[derive(Args)]
struct SoakOptions {
    #[command(flatten)]
    options: Options,
    /// How many nodes the soak starts
    #[arg(long)]
    nodes: Option<usize>,
    /// How many seconds the nodes are held full
    #[arg(long)]
    hold: Option<u64>,
    /// The joins in a second while the nodes fill
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
}

#[derive(Args)]
struct ScaleOptions {
    /// The gateway to measure
    #[arg(long, default_value = "target/release/rollcall")]
    gateway: PathBuf,
    /// The numbers of nodes, measured one after the other; rates are compared with those of the first number
    #[arg(long, value_delimiter = ',', default_value = "1,8,55")]
    nodes: Vec<usize>,
    /// How many agents come at each pace, on all nodes together
    #[arg(long, default_value_t = 6000)]
    agents: usize,
    /// The folder for the results and the report
    #[arg(long, default_value = "loadtest/out")]
    out: PathBuf,
}

#[derive(Args)]
struct WebhookOptions {
    #[command(flatten)]
    options: Options,
    /// How many seconds the receiver is down
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The events in a second during the outage
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// How many nodes run on PostgreSQL, Redis and NATS
    #[arg(long, default_value_t = 3)]
    nodes: usize,
}

#[derive(Args)]
struct RaceOptions {
    /// The gateway to judge
    #[arg(long, default_value = "target/release/rollcall")]
    gateway: PathBuf,
    /// How many pairs enter
    #[arg(long, default_value_t = 2000)]
    pairs: usize,
    /// How many pairs enter at once
    #[arg(long, default_value_t = 200)]
    at_once: usize,
    /// How many nodes run
    #[arg(long, default_value_t = 3)]
    nodes: usize,
}

impl SoakOptions {
    fn soak(&self, nodes: usize, hold: u64) -> Soak {
        Soak {
            nodes: self.nodes.unwrap_or(nodes),
            hold: Duration::from_secs(self.hold.unwrap_or(hold)),
            rate: self.rate,
        }
    }
}

fn main() -> ExitCode {
    rollcall_loadtest::raise_open_files();
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rollcall-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command. Returns whether every limit was kept.
fn run(verb: Verb) -> io::Result<bool> {
    match verb {
        Verb::Worker => load::worker::run().map(|()| true),
        Verb::FloorServer => load::floor::serve().map(|()| true),
        Verb::Report { out } => {
            let results = Results::read(&out.join(RESULTS))?;
            fs::write(out.join(REPORT), load::report::html(&results))?;
            Ok(results.hold())
        }
        Verb::Chaos(options) => chaos::run(&options),
        Verb::Race(RaceOptions { gateway, pairs, at_once, nodes }) => {
            scenario::race::run(&gateway, nodes.max(1), Race { pairs, at_once })
        }
        Verb::Floor(options) => perform(&options, |stage| stage.floor().map(drop)),
        Verb::Join(options) => perform(&options, scenario::join::run),
        Verb::Idle(options) => perform(&options, scenario::idle::run),
        Verb::Fanout(options) => perform(&options, scenario::fanout::run),
        Verb::Functions(options) => perform(&options, scenario::functions::run),
        Verb::Publisher(options) => perform(&options, scenario::publisher::run),
        Verb::Rosters(options) => perform(&options, scenario::rosters::run),
        Verb::Attendance(options) => perform(&options, scenario::attendance::run),
        Verb::Webhook(WebhookOptions { options, seconds, rate, nodes }) => {
            let outage = Outage { lasts: Duration::from_secs(seconds), rate, nodes: nodes.max(1) };
            perform(&options, |stage| scenario::webhook::run(stage, outage))
        }
        Verb::Hostile(options) => perform(&options, scenario::hostile::run),
        Verb::Socketio(options) => perform(&options, scenario::socketio::run),
        Verb::Reconnect(options) => perform(&options, scenario::reconnect::run),
        Verb::Consoles(options) => perform(&options, scenario::consoles::run),
        Verb::Soak(soak) => {
            let length = soak.soak(10, 600);
            perform(&soak.options, |stage| scenario::soak::run(stage, length))
        }
        Verb::Scale(ScaleOptions { gateway, nodes, agents, out }) => {
            let options = Options { gateway, backends: vec![Kind::Real], agents, out };
            perform(&options, |stage| scenario::scale::run(stage, &nodes))
        }
        Verb::Bench(soak) => {
            let length = soak.soak(2, 20);
            perform(&soak.options, |stage| {
                stage.floor()?;
                scenario::join::run(stage)?;
                scenario::rosters::run(stage)?;
                scenario::fanout::run(stage)?;
                scenario::publisher::run(stage)?;
                scenario::functions::run(stage)?;
                scenario::attendance::run(stage)?;
                scenario::webhook::run(stage, Outage::SHORT)?;
                scenario::hostile::run(stage)?;
                scenario::reconnect::run(stage)?;
                scenario::socketio::run(stage)?;
                scenario::idle::run(stage)?;
                scenario::consoles::run(stage)?;
                scenario::soak::run(stage, length)
            })
        }
    }
}

/// Runs scenarios, then writes their results, even if a scenario failed.
fn perform(options: &Options, scenarios: impl FnOnce(&mut Stage) -> io::Result<()>) -> io::Result<bool> {
    let gateway = options.gateway.exists().then(|| options.gateway.clone());
    let mut stage = Stage::new(gateway, options.backends.clone(), options.agents);
    let ended = scenarios(&mut stage);
    write(&stage.results, &options.out)?;
    println!("{}", stage.results.table());
    ended?;
    Ok(stage.results.hold())
}

/// Writes the results and their report. Both include what earlier runs in this folder have measured.
fn write(results: &Results, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    let file = out.join(RESULTS);
    // There are no earlier results in the first run, or if another version wrote them in another form.
    let earlier = Results::read(&file).unwrap_or_default();
    let results = results.with_earlier(earlier);
    results.write(&file)?;
    fs::write(out.join(REPORT), load::report::html(&results))?;
    println!("{}", out.join(REPORT).display());
    Ok(())
}
