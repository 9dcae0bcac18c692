//! Decides when a relay leaves its shards to other nodes.
//!
//! A relay that reads rows and deletes none is cut off from the bus, or the bus is away. If there are other relays,
//! such a relay yields: it gives all its shards back for a while, so that other relays can publish the shards' events.
//! This time grows while the bus does not answer the relay. The last relay does not yield.
use std::time::Duration;

use tokio::time::Instant;

/// How long a relay may delete none of the rows that it has read.
const STUCK: Duration = Duration::from_secs(1);
/// How long a relay yields at first, and at most if the bus answers it.
const YIELD: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(15));

pub(super) struct Yielding {
    /// The time since which no row that was read has been deleted.
    stuck: Option<Instant>,
    /// Until when the relay yields, and for how long it will yield the next time.
    until: Option<Instant>,
    next: Duration,
    bus_is_away: bool,
}

impl Default for Yielding {
    fn default() -> Self {
        Self { stuck: None, until: None, next: YIELD.0, bus_is_away: false }
    }
}

impl Yielding {
    /// Records that rows were read.
    pub(super) fn read(&mut self) {
        self.stuck.get_or_insert_with(Instant::now);
    }

    /// Records that rows were published and deleted.
    pub(super) fn deleted(&mut self) {
        (self.stuck, self.next) = (None, YIELD.0);
    }

    /// Records whether the bus does not answer this node.
    pub(super) fn bus_is_away(&mut self, away: bool) {
        self.bus_is_away = away;
    }

    /// Returns whether the relay yields now. `has_others` says whether another node wants shards.
    pub(super) fn yields(&mut self, has_others: bool) -> bool {
        if let Some(until) = self.until {
            if has_others && (self.bus_is_away || Instant::now() < until) {
                return true;
            }
            (self.until, self.stuck) = (None, None);
        }
        if !has_others || self.stuck.is_none_or(|since| since.elapsed() < STUCK) {
            return false;
        }
        self.until = Some(Instant::now() + self.next);
        self.next = (2 * self.next).min(YIELD.1);
        tracing::info!("what this node cannot publish is left to other nodes for a while");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_publishes_nothing_yields_until_the_bus_answers() {
        let mut yielding = Yielding::default();
        yielding.read();
        assert!(!yielding.yields(true));
        tokio::time::advance(STUCK).await;
        assert!(!yielding.yields(false), "it is the last one");
        assert!(yielding.yields(true));
        tokio::time::advance(YIELD.0).await;
        yielding.bus_is_away(true);
        assert!(yielding.yields(true), "its events would wait again");
        yielding.bus_is_away(false);
        assert!(!yielding.yields(true), "it tries again");
        yielding.read();
        tokio::time::advance(STUCK).await;
        assert!(yielding.yields(true));
        tokio::time::advance(YIELD.0).await;
        assert!(yielding.yields(true), "for longer");
        yielding.bus_is_away(true);
        assert!(!yielding.yields(false), "the others are gone");
    }
}
