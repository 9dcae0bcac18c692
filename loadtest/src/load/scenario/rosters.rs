//! A thousand agents enter one room at once, first without a roster, then with the whole roster for each.

use std::io;
use std::time::Duration;

use crate::load::clock::SECOND;
use crate::load::crew::Crew;
use crate::load::order::{Crowd, Goal, Listen, Pace};
use crate::load::results::Limit;
use crate::load::stage::{Stage, WINDOW};
use crate::load::system::Kind;

const ROOM: usize = 1000;
const PUSH_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.gateways() {
        measure(stage, kind)?;
    }
    Ok(())
}

fn measure(stage: &mut Stage, kind: Kind) -> io::Result<()> {
    let crowds = [
        (Crowd::new(11, ROOM, ROOM), "1,000 into one room", 1.5),
        (Crowd::new(14, ROOM, ROOM).with_rosters(), "1,000 into one room, each with a roster of all", 3.0),
    ];
    let system = stage.start(kind, 1, &crowds.each_ref().map(|(crowd, ..)| crowd.clone()))?;
    let mut crew = Crew::for_agents(crowds.len() * ROOM)?;
    for (crowd, name, limit) in crowds {
        let band = crew.prepare(&crowd, system.address())?;
        crew.listen(Listen::Count)?;
        let wave = crew.arrive(&band, Pace::Window(WINDOW), Goal::Joined)?;
        let last = crew.pushes(&band, (ROOM - 1) as f64 / 2.0, PUSH_LIMIT, || Ok(()))?;
        let mut note = stage.note("rosters", kind);
        note.failures(name, &wave);
        let took = |last: u64| last.max(wave.ended).saturating_sub(wave.began) as f64 / SECOND as f64;
        let took = last.map_or(f64::INFINITY, took);
        note.figure(&format!("{name}: all in, all 499,500 pushes"), took, "s", Some(Limit::AtMost(limit)));
        crew.leave(&band)?;
        system.wait_until_empty()?;
    }
    Ok(())
}
