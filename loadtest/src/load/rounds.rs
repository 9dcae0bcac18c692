//! Rounds of one event each into a room: the deliveries in a second if no two events are under way together.

use std::io;
use std::time::Duration;

use super::clock::{SECOND, now};
use super::crew::{Band, Crew};
use super::order::Listen;
use super::publisher::Publisher;

/// The size of an event's body in bytes.
pub(crate) const EVENT_SIZE: usize = 200;
const ROUNDS: usize = 30;
const ROUND_LIMIT: Duration = Duration::from_secs(20);

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

    /// Returns the deliveries in a second over all rounds.
    pub(crate) fn overall(&self) -> f64 {
        (self.members * self.took.len()) as f64 / self.took.iter().sum::<f64>()
    }

    /// Returns the deliveries in a second of each round.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let rates = self.took.iter().map(|took| self.members as f64 / took);
        (1..).map(f64::from).zip(rates).collect()
    }
}
