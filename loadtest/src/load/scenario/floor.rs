//! The floor's own rates: upgrades with a message and its ack, and sends into a room of 10,000.

use std::io;

use crate::load::crew::Crew;
use crate::load::order::{Crowd, Goal};
use crate::load::rounds::Rounds;
use crate::load::stage::{FloorRates, Stage, fastest};
use crate::load::system::{Kind, System};

pub(crate) const ROOM: usize = 10_000;

impl Stage {
    /// Returns the floor's rates, measured when they are first asked for.
    pub(crate) fn floor(&mut self) -> io::Result<FloorRates> {
        if let Some(floor) = &self.floor {
            return Ok(floor.clone());
        }
        let floor = run(self)?;
        self.floor = Some(floor.clone());
        Ok(floor)
    }
}

fn run(stage: &mut Stage) -> io::Result<FloorRates> {
    let system = System::floor()?;
    let mut crew = Crew::for_agents(stage.agents)?;
    let crowd = Crowd::new(1, stage.agents, 30);
    let band = crew.prepare(&crowd, system.address())?;
    let (connects, last) = fastest(&mut crew, &system, &band, Goal::Connected)?;
    crew.leave(&band)?;

    let members = ROOM.min(stage.agents);
    let system = System::floor()?;
    let mut crew = Crew::for_agents(members)?;
    let crowd = Crowd::new(2, members, members);
    let band = crew.prepare(&crowd, system.address())?;
    fastest(&mut crew, &system, &band, Goal::Connected)?;
    let mut publisher = system.publisher()?;
    let sends = Rounds::run(&mut crew, &band, &mut publisher, &crowd.lesson(0))?;

    let mut note = stage.note("floor", Kind::Floor);
    note.failures("upgrade and ack", &last);
    note.figure("upgrade and ack", connects, "/s", None);
    note.figure(&format!("sends to a room of {members}"), sends.overall(), "/s", None);
    Ok(FloorRates { connects, sends })
}
