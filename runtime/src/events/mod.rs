//! How many events a connection, and a user over all connections, may send (PROTOCOL 2, Limits).
//!
//! Invariant: over a limit an event is answered with how long to wait, and nothing else happens; a connection is closed
//! only if it was over it in every second of a whole span.
mod rate;

use std::time::{Duration, Instant};

use rollcall_schema::{Audience, UserId};

use self::rate::{Bucket, Rate, Sketch};
use crate::config::EventRates;

/// How many seconds' worth may come at once.
const BURST: u32 = 4;

/// What a connection has used up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    bucket: Bucket,
    /// The second in which an event was refused last, and how many seconds in a row before.
    refused: (u32, u32),
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It may come again then.
    Refused(Duration),
    /// The connection has been asked to wait often enough.
    Abuse,
}

/// The limits, and what users have used up.
#[derive(Debug)]
pub struct EventLimits {
    start: Instant,
    connection: Rate,
    user: Rate,
    users: Sketch,
    patience: u32,
}

impl EventLimits {
    /// The configured ones.
    #[must_use]
    pub fn new(rates: &EventRates) -> Self {
        let rate = |per_second: u32| Rate::new(per_second, per_second.saturating_mul(BURST));
        Self {
            start: Instant::now(),
            connection: rate(rates.connection),
            user: rate(rates.user),
            users: Sketch::new(),
            patience: u32::try_from(rates.abuse_after.as_secs()).unwrap_or(u32::MAX).max(1),
        }
    }

    /// An event of a connection, and of the user whose token it has.
    pub fn take(&self, meter: &mut Meter, user: Option<&(UserId, Audience)>) -> Verdict {
        self.take_at(meter, user, self.start.elapsed())
    }

    fn take_at(&self, meter: &mut Meter, user_of: Option<&(UserId, Audience)>, since: Duration) -> Verdict {
        let connection = self.connection.take(&mut meter.bucket, since);
        let user = |user: &(UserId, Audience)| self.users.take(self.user, user, since);
        match connection.and_then(|()| user_of.map_or(Ok(()), user)) {
            Ok(()) => Verdict::Done,
            Err(wait) => meter.refuse(wait, u32::try_from(since.as_secs()).unwrap_or(u32::MAX), self.patience),
        }
    }
}

impl Meter {
    fn refuse(&mut self, wait: Duration, second: u32, patience: u32) -> Verdict {
        let (last, row) = self.refused;
        let row = match second.saturating_sub(last) {
            0 => row.max(1),
            1 => row + 1,
            _ => 1,
        };
        self.refused = (second, row);
        if row > patience { Verdict::Abuse } else { Verdict::Refused(wait.max(Duration::from_millis(1))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connection: u32, user: u32) -> EventLimits {
        EventLimits::new(&EventRates { connection, user, abuse_after: Duration::from_secs(3) })
    }

    fn user(name: &str) -> (UserId, Audience) {
        (UserId::parse(name).unwrap(), Audience::parse("example.org").unwrap())
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_user_has_one_limit_over_all_connections() {
        let limits = limits(10, 20);
        let alice = user("alice");
        let done = |of: &(UserId, Audience)| {
            let mut meter = Meter::default();
            (0..100).filter(|_| limits.take_at(&mut meter, Some(of), at(0)) == Verdict::Done).count()
        };
        assert_eq!([done(&alice), done(&alice), done(&alice), done(&user("bob"))], [40, 40, 0, 40]);
    }

    #[test]
    fn only_who_goes_on_for_seconds_is_closed() {
        let limits = limits(10, 1_000);
        let mut meter = Meter::default();
        let mut verdicts = (0..6_000).map(|millis| limits.take_at(&mut meter, None, at(millis)));
        let closed = verdicts.position(|verdict| verdict == Verdict::Abuse);
        assert!(closed.is_some_and(|millis| (2_900..=4_000).contains(&millis)), "{closed:?}");

        // A burst now and then is no abuse, however large.
        let mut meter = Meter::default();
        for second in (0..60).step_by(2) {
            let verdicts: Vec<_> = (0..1_000).map(|_| limits.take_at(&mut meter, None, at(second * 1_000))).collect();
            assert!(verdicts.contains(&Verdict::Done) && !verdicts.contains(&Verdict::Abuse), "{second}");
            assert!(verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refused(wait) if *wait <= at(100))));
        }
    }
}
