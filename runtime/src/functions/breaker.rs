//! A circuit breaker: after several calls without an answer, a function is not called for a while.
//!
//! Invariant: while the circuit is open no call is sent, and while it is half-open exactly one call is sent. Only the
//! outcome of that call closes the circuit or opens it again. The outcomes of calls that were sent before are not
//! counted.
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use rollcall_base::names;

/// The longest pause, as a multiple of the first pause.
const LONGEST_PAUSE: u32 = 32;

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// The number of failures in a row after which the circuit opens.
    pub failures: u32,
    /// How long the circuit stays open at first. The time doubles each time that the circuit opens again, up to 32
    /// times the first pause.
    pub pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    Closed(Closed),
    Open(Open),
    HalfOpen(HalfOpen),
}

/// A closed circuit: calls are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Closed {
    /// How many calls in a row have failed.
    failures: u32,
}

/// An open circuit: no call is sent before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    until: Instant,
    pause: Duration,
}

/// A half-open circuit: one call was sent to find out whether the function answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HalfOpen {
    /// The pause before the call that finds out whether the function answers.
    pause: Duration,
}

impl Closed {
    fn after_failure(self, options: BreakerOptions, now: Instant) -> Circuit {
        let failures = self.failures + 1;
        if failures < options.failures {
            return Circuit::Closed(Self { failures });
        }
        Circuit::Open(Open { until: now + options.pause, pause: options.pause })
    }
}

impl Open {
    fn half_open(self, now: Instant) -> Option<HalfOpen> {
        (now >= self.until).then_some(HalfOpen { pause: self.pause })
    }
}

impl HalfOpen {
    fn after_failure(self, options: BreakerOptions, now: Instant) -> Open {
        let pause = (self.pause * 2).min(options.pause * LONGEST_PAUSE);
        Open { until: now + pause, pause }
    }
}

/// The circuit of one function.
#[derive(Debug)]
pub(super) struct Breaker {
    function: &'static str,
    options: BreakerOptions,
    circuit: Mutex<Circuit>,
}

impl Breaker {
    pub(super) fn new(function: &'static str, options: BreakerOptions) -> Self {
        let breaker = Self { function, options, circuit: Mutex::new(Circuit::Closed(Closed::default())) };
        breaker.show(Circuit::Closed(Closed::default()));
        breaker
    }

    /// Returns whether a call would be sent now.
    pub(super) fn would_admit(&self) -> bool {
        match *self.circuit.lock() {
            Circuit::Closed(_) => true,
            Circuit::Open(open) => open.half_open(Instant::now()).is_some(),
            Circuit::HalfOpen(_) => false,
        }
    }

    /// Permits a call, or returns `None` while the circuit is open.
    pub(super) fn admit(&self) -> Option<Attempt<'_>> {
        let mut circuit = self.circuit.lock();
        let trial = match *circuit {
            Circuit::Closed(_) => None,
            Circuit::Open(open) => Some(open.half_open(Instant::now())?),
            Circuit::HalfOpen(_) => return None,
        };
        if let Some(half_open) = trial {
            *circuit = Circuit::HalfOpen(half_open);
        }
        Some(Attempt { breaker: self, is_trial: trial.is_some(), reported: false })
    }

    fn report(&self, is_trial: bool, answered: bool) {
        let mut circuit = self.circuit.lock();
        let now = Instant::now();
        let next = match *circuit {
            Circuit::Closed(_) if answered => Circuit::Closed(Closed::default()),
            Circuit::Closed(closed) => closed.after_failure(self.options, now),
            Circuit::HalfOpen(_) if is_trial && answered => Circuit::Closed(Closed::default()),
            Circuit::HalfOpen(half_open) if is_trial => Circuit::Open(half_open.after_failure(self.options, now)),
            // This call was sent before the circuit opened.
            Circuit::Open(_) | Circuit::HalfOpen(_) => return,
        };
        let was_closed = matches!(*circuit, Circuit::Closed(_));
        *circuit = next;
        drop(circuit);
        self.show(next);
        match next {
            Circuit::Closed(_) if !was_closed => tracing::info!(function = self.function, "a function answers again"),
            Circuit::Open(Open { pause, .. }) => {
                tracing::warn!(
                    function = self.function,
                    ?pause,
                    "a function gives no answers: it is not called for a while"
                );
            }
            Circuit::Closed(_) | Circuit::HalfOpen(_) => {}
        }
    }

    fn show(&self, circuit: Circuit) {
        let open = if matches!(circuit, Circuit::Closed(_)) { 0.0 } else { 1.0 };
        metrics::gauge!(names::FUNCTION_CIRCUIT_OPEN, "function" => self.function).set(open);
    }
}

/// A call that may be sent. If it is dropped without a report, it counts as failed.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    breaker: &'a Breaker,
    is_trial: bool,
    reported: bool,
}

impl Attempt<'_> {
    /// Reports that the function answered.
    pub(super) fn answered(mut self) {
        self.reported = true;
        self.breaker.report(self.is_trial, true);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.reported {
            self.breaker.report(self.is_trial, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new("f", BreakerOptions { failures: 3, pause: PAUSE })
    }

    fn fail(breaker: &Breaker) {
        drop(breaker.admit().expect("the circuit is closed, or may be tried"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row() {
        let breaker = breaker();
        for _ in 0..5 {
            fail(&breaker);
            fail(&breaker);
            breaker.admit().unwrap().answered();
        }
        (0..3).for_each(|_| fail(&breaker));
        assert!(breaker.admit().is_none() && !breaker.would_admit());
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_tries_after_a_pause_that_grows() {
        let breaker = breaker();
        (0..3).for_each(|_| fail(&breaker));
        for doubled in [1, 2, 4, 8, 16, 32, 32] {
            tokio::time::advance(PAUSE * doubled - Duration::from_millis(1)).await;
            assert!(breaker.admit().is_none());
            tokio::time::advance(Duration::from_millis(1)).await;
            let trial = breaker.admit().expect("the pause is over");
            assert!(breaker.admit().is_none(), "one at a time");
            drop(trial);
        }
        tokio::time::advance(PAUSE * LONGEST_PAUSE).await;
        breaker.admit().unwrap().answered();
        fail(&breaker);
        assert!(breaker.admit().is_some(), "closed, and the failures count from anew");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_from_before_do_not_count() {
        let breaker = breaker();
        let (early, late) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        (0..3).for_each(|_| fail(&breaker));
        early.answered();
        assert!(breaker.admit().is_none(), "still open");
        tokio::time::advance(PAUSE).await;
        let trial = breaker.admit().unwrap();
        drop(late);
        trial.answered();
        assert!(breaker.would_admit());
    }
}
