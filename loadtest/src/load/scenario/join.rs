//! Durable joins: how fast agents connect, and connect and join, and how long each waits at half of that rate; then the
//! same beside 10,000 idle agents.

use std::io;
use std::time::Duration;

use crate::load::crew::Crew;
use crate::load::order::{Arrived, Crowd, Goal, Listen, Pace};
use crate::load::peers;
use crate::load::results::Limit;
use crate::load::stage::{Stage, WINDOW, fastest};
use crate::load::system::Kind;

const ROOM: usize = 30;
const IDLE: usize = 10_000;
/// The share of the rate, in percent, that must remain if backends are reached by TLS.
const WITH_TLS: f64 = 90.0;
const PUSH_LIMIT: Duration = Duration::from_secs(30);
/// The step of the plot over time, in microseconds.
const TICK: u32 = 100_000;

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    let mut plain = None;
    for kind in stage.kinds.clone() {
        let joins = alone(stage, kind)?;
        match (kind, plain) {
            (Kind::Real, _) => plain = Some(joins),
            (Kind::Tls, Some(plain)) => {
                let limit = Some(Limit::AtLeast(WITH_TLS));
                stage.note("join", kind).figure("connect and join, of real", joins / plain * 100.0, "%", limit);
            }
            _ => {}
        }
        beside_idle(stage, kind)?;
    }
    Ok(())
}

/// Returns the limits as shares of the floor: connect, and connect with join_lesson.
fn shares(kind: Kind) -> (f64, f64) {
    match kind {
        Kind::Embedded => (0.45, 0.30),
        _ => (0.30, 0.18),
    }
}

/// Returns the number of connects with a join in a second.
fn alone(stage: &mut Stage, kind: Kind) -> io::Result<f64> {
    let floor = stage.floor()?.connects;
    let crowd = Crowd::new(10, stage.agents, ROOM);
    let system = stage.start(kind, 1, std::slice::from_ref(&crowd))?;
    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(&crowd, system.address())?;

    let (connects, wave) = fastest(&mut crew, &system, &band, Goal::Connected)?;
    let mut note = stage.note("join", kind);
    note.failures("connect", &wave);
    let limit = Some(Limit::OfFloor(shares(kind).0));
    note.beside_floor("connect", connects, "/s", Some(floor), limit);
    crew.leave(&band)?;
    system.wait_until_empty()?;

    let (joins, wave) = fastest(&mut crew, &system, &band, Goal::Joined)?;
    note.failures(peers::JOINS, &wave);
    let limit = Some(Limit::OfFloor(shares(kind).1));
    note.beside_floor(peers::JOINS, joins, "/s", Some(floor), limit);
    crew.leave(&band)?;
    system.wait_until_empty()?;

    // The agents join at half of the rate. Each agent that came before sees those that come later.
    crew.listen(Listen::Count)?;
    let wave = crew.arrive(&band, Pace::Rate(joins / 2.0), Goal::Joined)?;
    let each = (ROOM - 1) as f64 / 2.0;
    let seen = crew.pushes(&band, each, PUSH_LIMIT, || Ok(()))?;
    note.failures("at half of that rate", &wave);
    note.figure("at half of that rate: p50", wave.quantile_ms(0.50), "ms", None);
    note.figure("at half of that rate: p99", wave.quantile_ms(0.99), "ms", Some(Limit::AtMost(50.0)));
    let pushes = crew.count()?.pushes as f64;
    let all = (crowd.agents / ROOM * ROOM) as f64 * each;
    let share = if seen.is_some() { 1.0 } else { pushes / all };
    note.figure("entered events seen by those before", share * 100.0, "%", Some(Limit::AtLeast(100.0)));
    plots(&mut note, &wave);
    Ok(joins)
}

fn beside_idle(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let floor = stage.floor()?.connects;
    let idle = IDLE.min(stage.agents / 2);
    let sitting = Crowd::new(12, idle, ROOM);
    let crowd = Crowd::new(13, stage.agents - idle, ROOM);
    let system = stage.start(kind, 1, &[sitting.clone(), crowd.clone()])?;
    let mut crew = Crew::for_agents(stage.agents)?;
    let sitting = crew.prepare(&sitting, system.address())?;
    let band = crew.prepare(&crowd, system.address())?;
    crew.gather(&sitting)?;
    for (goal, name, share) in
        [(Goal::Connected, "connect", shares(kind).0), (Goal::Joined, peers::JOINS, shares(kind).1)]
    {
        let wave = crew.arrive(&band, Pace::Window(WINDOW), goal)?;
        let mut note = stage.note("join", kind);
        let name = format!("{name}, beside {idle} idle");
        note.failures(&name, &wave);
        let limit = Some(Limit::OfFloor(share));
        note.beside_floor(&name, wave.rate(), "/s", Some(floor), limit);
        crew.leave(&band)?;
        let gone = crew.count()?.lost;
        let lost: u64 = gone.values().sum();
        note.figure("idle connections lost", lost as f64, "", Some(Limit::AtMost(0.0)));
    }
    Ok(())
}

fn plots(note: &mut crate::load::stage::Note<'_>, wave: &Arrived) {
    let quantiles = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];
    let distribution = quantiles.map(|share| (share * 100.0, wave.quantile_ms(share)));
    let curve = vec![("latency".to_owned(), distribution.to_vec())];
    note.plot("Join latency at half of the rate", "percentile", "ms", curve);

    let last = wave.samples.iter().map(|(due, _)| due / TICK).max().unwrap_or(0);
    let ticks: Vec<Arrived> = (0..=last)
        .map(|tick| {
            let samples = wave.samples.iter().filter(|(due, _)| due / TICK == tick);
            Arrived { samples: samples.copied().collect(), ..Arrived::default() }
        })
        .collect();
    let over_time = |share: f64| {
        let points = ticks.iter().enumerate().filter(|(_, tick)| !tick.samples.is_empty());
        points.map(|(index, tick)| (index as f64 * 0.1, tick.quantile_ms(share))).collect::<Vec<_>>()
    };
    let curves = [("p50", 0.5), ("p99", 0.99)];
    let curves = curves.map(|(name, share)| (name.to_owned(), over_time(share)));
    note.plot("Join latency over time, by when each was due", "s", "ms", curves.to_vec());
}
