//! A storm of reconnects: the server is killed and starts again, and all agents come back.

use std::io;
use std::time::Duration;

use crate::load::clock::{SECOND, now};
use crate::load::crew::Crew;
use crate::load::order::Crowd;
use crate::load::results::Limit;
use crate::load::stage::Stage;
use crate::load::system::Kind;

const GONE_LIMIT: Duration = Duration::from_secs(10);
const RETURN_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    for kind in stage.kinds.clone() {
        storm(stage, kind, false)?;
        storm(stage, kind, true)?;
    }
    Ok(())
}

fn storm(stage: &mut Stage, kind: Kind, resume: bool) -> io::Result<()> {
    let crowd = Crowd::new(40, stage.agents, 30);
    comes_back(stage, kind, &if resume { crowd.resuming() } else { crowd }, "reconnect")
}

/// Kills a crowd's gateway, and lets all its agents come back.
pub(super) fn comes_back(stage: &mut Stage, kind: Kind, crowd: &Crowd, scenario: &str) -> io::Result<()> {
    let mut system = stage.start(kind, 1, std::slice::from_ref(crowd))?;
    let mut crew = Crew::for_agents(crowd.agents)?;
    let band = crew.prepare(crowd, system.address())?;
    crew.gather(&band)?;
    let before = crew.count()?;
    crew.return_by_themselves(true)?;
    system.gateway()?.kill()?;
    let gone = std::time::Instant::now() + GONE_LIMIT;
    while crew.count()?.present > 0 && std::time::Instant::now() < gone {
        std::thread::sleep(Duration::from_millis(10));
    }
    system.gateway()?.restart()?;
    let up = now();
    let back = crew.presence(&band, RETURN_LIMIT)?;
    let after = crew.count()?;
    let took = back.map_or(f64::INFINITY, |back| back.saturating_sub(up) as f64 / SECOND as f64);
    let limit = if kind == Kind::Embedded { 3.0 } else { 5.0 };
    let mut note = stage.note(scenario, kind);
    let who = if crowd.resume { "resumed" } else { "joined again" };
    let name = format!("{} {who} after a kill -9", crowd.agents);
    note.figure(&name, took, "s", Some(Limit::AtMost(limit)));
    let missing = crowd.agents - after.present;
    note.figure("not back after a minute", missing as f64, "", Some(Limit::AtMost(0.0)));
    if crowd.resume {
        // An embedded gateway's log is lost with its process.
        let all = (kind == Kind::Real).then_some(Limit::AtLeast(crowd.agents as f64));
        note.figure("told that they miss nothing", (after.recovered - before.recovered) as f64, "", all);
    }
    let hinted = after.hinted - before.hinted;
    note.figure("refused with a hint when to come again", hinted as f64, "", None);
    let unhinted = after.unhinted - before.unhinted;
    note.figure("refused without a hint", unhinted as f64, "", Some(Limit::AtMost(0.0)));
    Ok(())
}
