//! The floor's own rates: upgrades with a message and its ack, and sends into a room of 10,000.

use std::io;
use std::time::Duration;

use crate::load::clock::{SECOND, now};
use crate::load::crew::{Band, Crew};
use crate::load::order::{Crowd, Goal, Listen};
use crate::load::publisher::Publisher;
use crate::load::stage::{FloorRates, Stage, fastest};
use crate::load::system::{Kind, System};

pub(crate) const ROOM: usize = 10_000;
pub(crate) const ROUNDS: usize = 30;
pub(crate) const EVENT_SIZE: usize = 200;
const ROUND_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn run(stage: &mut Stage) -> io::Result<FloorRates> {
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

/// Deliveries if each event is delivered before the next one is published, so that nothing can be joined into one send.
#[derive(Debug, Clone)]
pub(crate) struct Rounds {
    members: usize,
    /// How long each round took, in seconds.
    took: Vec<f64>,
}

impl Rounds {
    pub(crate) fn run(crew: &mut Crew, band: &Band, publisher: &mut Publisher, lesson: &str) -> io::Result<Self> {
        crew.listen(Listen::Count)?;
        let mut took = Vec::new();
        for round in 1..=ROUNDS {
            let mut published = 0;
            let last = crew.pushes(band, round as f64, ROUND_LIMIT, || {
                published = now();
                publisher.publish(lesson, EVENT_SIZE, 1)
            })?;
            let last = last.ok_or_else(|| io::Error::other("a push did not reach everybody"))?;
            took.push((last - published) as f64 / SECOND as f64);
        }
        Ok(Self { members: band.agents(), took })
    }

    /// Deliveries a second over all rounds.
    pub(crate) fn overall(&self) -> f64 {
        (self.members * self.took.len()) as f64 / self.took.iter().sum::<f64>()
    }

    /// Deliveries a second in each round.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let rates = self.took.iter().map(|took| self.members as f64 / took);
        (1..).map(f64::from).zip(rates).collect()
    }
}
