//! One wave of arrivals: when each agent is due, and how its arrival ended.

use std::collections::BTreeMap;

use super::clock::SECOND;
use super::order::{Arrive, Arrived, Pace};

pub(super) struct Arrivals {
    order: Arrive,
    started: usize,
    on_the_way: usize,
    result: Arrived,
}

impl Arrivals {
    pub(super) fn new(order: Arrive) -> Self {
        let result = Arrived {
            began: order.start,
            ended: order.start,
            samples: Vec::with_capacity(order.count),
            failures: BTreeMap::new(),
        };
        Self { order, started: 0, on_the_way: 0, result }
    }

    /// Returns the moment at which the next agent is due, or `None` if it waits until another agent has arrived.
    pub(super) fn next_due(&self) -> Option<u64> {
        if self.started == self.order.count {
            return None;
        }
        match self.order.pace {
            Pace::Rate(per_second) => {
                let after = self.started as f64 / per_second * SECOND as f64;
                Some(self.order.start + after as u64)
            }
            Pace::Window(size) => (self.on_the_way < size).then_some(self.order.start),
        }
    }

    /// Returns the next agent to start, and the moment from which its arrival is measured.
    pub(super) fn start_next(&mut self, now: u64) -> Option<(usize, u64)> {
        let due = self.next_due().filter(|due| *due <= now)?;
        let agent = self.order.first + self.started;
        self.started += 1;
        self.on_the_way += 1;
        match self.order.pace {
            Pace::Rate(_) => Some((agent, due)),
            Pace::Window(_) => Some((agent, now)),
        }
    }

    pub(super) fn arrived(&mut self, due: u64, now: u64) {
        let micros = |from: u64, to: u64| (to.saturating_sub(from) / 1000) as u32;
        let sample = (micros(self.result.began, due), micros(due, now));
        self.result.samples.push(sample);
        self.over(now);
    }

    pub(super) fn failed(&mut self, reason: &str) {
        *self.result.failures.entry(reason.to_owned()).or_default() += 1;
        self.over(super::clock::now());
    }

    /// Returns the result, once all agents have arrived or the time is up.
    pub(super) fn finished(&mut self, now: u64) -> Option<Arrived> {
        let all = self.started == self.order.count && self.on_the_way == 0;
        if !all && now < self.order.deadline {
            return None;
        }
        let missing = self.order.count - self.started + self.on_the_way;
        if missing > 0 {
            let failures = &mut self.result.failures;
            *failures.entry("too late".to_owned()).or_default() += missing as u64;
        }
        Some(std::mem::take(&mut self.result))
    }

    fn over(&mut self, now: u64) {
        self.on_the_way = self.on_the_way.saturating_sub(1);
        self.result.ended = now;
    }
}
