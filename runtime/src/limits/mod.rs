//! Limits how many events a connection, a user over all connections, or the guests of one address may send, and how
//! often each may connect (PROTOCOL 2, Limits).
//!
//! Invariant: an event above a limit is answered with the time to wait, and has no other effect. A connection is closed
//! only if it was above its limit in every second of `abuse_after`.
pub mod admission;
pub mod clients;
mod forwarded;
pub mod memory;
pub mod network;
pub(crate) mod rate;
pub mod silent;

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rollcall_schema::{Audience, UserId};

use self::{
    network::Subscriber,
    rate::{Bucket, CurrentRate, Rate, Sketch},
};

/// The largest burst, as a multiple of the events of one second.
const BURST: u32 = 4;

/// The limits of users. A burst of events may be four times as large as the rate.
#[derive(Clone, Copy, Debug)]
pub struct EventRates {
    /// The events of one connection in a second.
    pub connection: u32,
    /// The events of one user in a second, over all connections.
    pub user: u32,
    /// How many sessions a user may have at the same time.
    pub user_sessions: u32,
    /// How often a user may connect, per second.
    pub user_connects: u32,
    /// The events of all guests of one address in a second. A connect counts as one event.
    pub guests: u32,
    /// How long a connection may exceed its rate before it is closed.
    pub abuse_after: Duration,
}

/// How much of its limits a connection has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    bucket: Bucket,
    /// The last second in which an event was refused, and for how many seconds in a row events were refused.
    refused: (u32, u32),
}

/// Whether an event is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateDecision {
    /// The event is handled.
    Done,
    /// The event is refused, and may be sent again after this time.
    Refused(Duration),
    /// The connection has exceeded its limit for too long, and is closed.
    Abuse,
}

/// The owner of the limit that an event counts against, besides the connection's own limit.
#[derive(Clone, Copy, Debug)]
pub enum Payer<'a> {
    /// The user of a token.
    User(&'a UserId, &'a Audience),
    /// A guest with its address. `None` if the address is not limited.
    Guest(Option<Subscriber>),
}

/// The limits, and how much of them users and guests have used.
#[derive(Debug)]
pub struct EventLimits {
    start: Instant,
    connection: CurrentRate,
    user: CurrentRate,
    user_connects: CurrentRate,
    guests: CurrentRate,
    used: Sketch,
    /// For how many seconds in a row a connection may be refused.
    abuse_after: AtomicU32,
}

impl EventLimits {
    /// Creates limits with these rates.
    #[must_use]
    pub fn new(rates: &EventRates) -> Self {
        Self {
            start: Instant::now(),
            connection: CurrentRate::new(rate(rates.connection)),
            user: CurrentRate::new(rate(rates.user)),
            user_connects: CurrentRate::new(rate(rates.user_connects)),
            guests: CurrentRate::new(rate(rates.guests)),
            used: Sketch::new(),
            abuse_after: AtomicU32::new(seconds(rates.abuse_after)),
        }
    }

    /// Sets other rates, which apply from the next event on. What users and guests have already used stays counted. The
    /// number of sessions of a user is limited elsewhere.
    pub fn set(&self, rates: &EventRates) {
        self.connection.set(rate(rates.connection));
        self.user.set(rate(rates.user));
        self.user_connects.set(rate(rates.user_connects));
        self.guests.set(rate(rates.guests));
        self.abuse_after.store(seconds(rates.abuse_after), Relaxed);
    }

    /// Counts an event of a connection.
    pub fn take(&self, meter: &mut Meter, payer: Payer<'_>) -> RateDecision {
        self.take_at(meter, payer, self.start.elapsed())
    }

    /// Counts a connect.
    ///
    /// # Errors
    /// Returns how long to wait before the next connect if the limit is exceeded.
    pub fn connect(&self, payer: Payer<'_>) -> Result<(), Duration> {
        self.connect_at(payer, self.start.elapsed())
    }

    /// Counts a request over HTTP as an event.
    ///
    /// # Errors
    /// Returns how long to wait before the next request if the limit is exceeded.
    pub fn request(&self, payer: Payer<'_>) -> Result<(), Duration> {
        self.pay(payer, self.start.elapsed())
    }

    fn connect_at(&self, payer: Payer<'_>, since: Duration) -> Result<(), Duration> {
        match payer {
            Payer::User(user, audience) => self.used.take(self.user_connects.get(), ("connect", user, audience), since),
            Payer::Guest(_) => self.pay(payer, since),
        }
    }

    fn pay(&self, payer: Payer<'_>, since: Duration) -> Result<(), Duration> {
        match payer {
            Payer::User(user, audience) => self.used.take(self.user.get(), ("event", user, audience), since),
            Payer::Guest(Some(address)) => self.used.take(self.guests.get(), address, since),
            Payer::Guest(None) => Ok(()),
        }
    }

    fn take_at(&self, meter: &mut Meter, payer: Payer<'_>, since: Duration) -> RateDecision {
        let connection = self.connection.get().take(&mut meter.bucket, since);
        match connection.and_then(|()| self.pay(payer, since)) {
            Ok(()) => RateDecision::Done,
            Err(wait) => meter.refuse(wait, whole_seconds(since), self.abuse_after.load(Relaxed)),
        }
    }
}

fn rate(per_second: u32) -> Rate {
    Rate::new(per_second, per_second.saturating_mul(BURST))
}

fn seconds(time: Duration) -> u32 {
    whole_seconds(time).max(1)
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

impl Meter {
    fn refuse(&mut self, wait: Duration, second: u32, abuse_after: u32) -> RateDecision {
        let (last, row) = self.refused;
        let row = match second.saturating_sub(last) {
            0 => row.max(1),
            1 => row + 1,
            _ => 1,
        };
        self.refused = (second, row);
        if row > abuse_after { RateDecision::Abuse } else { RateDecision::Refused(wait.max(Duration::from_millis(1))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::network::subscriber;

    fn limits(connection: u32, user: u32) -> EventLimits {
        let abuse_after = Duration::from_secs(3);
        EventLimits::new(&EventRates { connection, user, user_sessions: 20, user_connects: 2, guests: 5, abuse_after })
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
            (0..100)
                .filter(|_| limits.take_at(&mut meter, Payer::User(&of.0, &of.1), at(0)) == RateDecision::Done)
                .count()
        };
        assert_eq!([done(&alice), done(&alice), done(&alice), done(&user("bob"))], [40, 40, 0, 40]);
    }

    #[test]
    fn a_user_connects_only_so_often_whatever_else_it_does() {
        let limits = limits(1_000, 5);
        let (alice, bob) = (user("alice"), user("bob"));
        let payer = |(user, audience): &'static (UserId, Audience)| Payer::User(user, audience);
        let (alice, bob) = (payer(Box::leak(Box::new(alice))), payer(Box::leak(Box::new(bob))));
        let connects = |of, millis| (0..100).filter(|_| limits.connect_at(of, at(millis)).is_ok()).count();
        assert_eq!([connects(alice, 0), connects(bob, 0), connects(alice, 1_000)], [8, 8, 2]);
        assert_eq!(
            limits.take_at(&mut Meter::default(), alice, at(0)),
            RateDecision::Done,
            "events have a limit of their own"
        );
    }

    #[test]
    fn the_guests_of_an_address_have_one_limit_for_connects_and_events() {
        let limits = limits(1_000, 1_000);
        let guest = |last: u8| Payer::Guest(subscriber(std::net::IpAddr::from([192, 0, 2, last]), false));
        assert_eq!((0..10).filter(|_| limits.connect_at(guest(1), at(0)).is_ok()).count(), 10);
        let done =
            |of| (0..100).filter(|_| limits.take_at(&mut Meter::default(), of, at(0)) == RateDecision::Done).count();
        assert_eq!([done(guest(1)), done(guest(2)), done(Payer::Guest(None))], [10, 20, 100]);
    }

    #[test]
    fn only_a_connection_that_goes_on_for_seconds_is_closed() {
        let limits = limits(10, 1_000);
        let mut meter = Meter::default();
        let mut verdicts = (0..6_000).map(|millis| limits.take_at(&mut meter, Payer::Guest(None), at(millis)));
        let closed = verdicts.position(|verdict| verdict == RateDecision::Abuse);
        assert!(closed.is_some_and(|millis| (2_900..=4_000).contains(&millis)), "{closed:?}");

        // A burst now and then is not abuse, however large the burst is.
        let mut meter = Meter::default();
        for second in (0..60).step_by(2) {
            let take = |_| limits.take_at(&mut meter, Payer::Guest(None), at(second * 1_000));
            let verdicts: Vec<_> = (0..1_000).map(take).collect();
            assert!(verdicts.contains(&RateDecision::Done) && !verdicts.contains(&RateDecision::Abuse), "{second}");
            assert!(verdicts.iter().any(|verdict| matches!(verdict, RateDecision::Refused(wait) if *wait <= at(100))));
        }
    }

    #[test]
    fn other_rates_count_from_the_next_event_on() {
        let limits = limits(10, 1_000);
        let mut meter = Meter::default();
        let mut done = |limits: &EventLimits, millis| {
            let take = |_: &i32| limits.take_at(&mut meter, Payer::Guest(None), at(millis)) == RateDecision::Done;
            (0..100).filter(take).count()
        };
        assert_eq!([done(&limits, 0), done(&limits, 100)], [40, 1]);
        let abuse_after = Duration::from_secs(3);
        let more =
            EventRates { connection: 40, user: 1_000, user_sessions: 20, user_connects: 2, guests: 5, abuse_after };
        limits.set(&more);
        assert_eq!([done(&limits, 100), done(&limits, 200)], [0, 4], "what was used up stays");
    }
}
