//! The last fifteen minutes, as points of half a minute each.
//!
//! Invariant: however long the node runs and however often its metrics are read, at most [`POINTS`] points and the
//! readings of the last [`WINDOW`] are kept.
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::reading::{Buckets, Reading};

/// The time between two points.
pub(super) const EVERY: Duration = Duration::from_secs(30);
/// The maximum number of points.
const POINTS: usize = 30;
/// The time over which current rates and quantiles are computed.
const WINDOW: Duration = Duration::from_secs(10);
/// Readings whose times differ by less count as one.
const APART: Duration = Duration::from_millis(500);

/// The numbers of half a minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// Open connections at the end of the half minute.
    pub(super) connections: f64,
    /// Clients that were let in, per second.
    pub(super) entered: f64,
    /// Connections that ended, per second.
    pub(super) left: f64,
    /// Events queued to clients, per second.
    pub(super) pushes: f64,
    /// The 99th percentile of the times of all handlers, in seconds.
    pub(super) p99: Option<f64>,
    /// Failed calls, by backend.
    pub(super) errors: BTreeMap<String, f64>,
}

/// The difference between two readings.
pub(super) struct Change<'a> {
    pub(super) from: &'a Reading,
    pub(super) to: &'a Reading,
}

impl Change<'_> {
    /// Returns a counter's rate per second.
    pub(super) fn rate(&self, counter: impl Fn(&Reading) -> f64) -> f64 {
        let seconds = self.to.at.saturating_sub(self.from.at).as_secs_f64();
        if seconds > 0.0 { (counter(self.to) - counter(self.from)) / seconds } else { 0.0 }
    }

    /// Returns the times of a handler's runs.
    pub(super) fn times(&self, function: &str) -> Buckets {
        let earlier = self.from.functions.get(function).map(|function| &function.times);
        self.to.functions.get(function).map(|function| function.times.since(earlier)).unwrap_or_default()
    }

    /// Returns the times of all handlers' runs.
    pub(super) fn all_times(&self) -> Buckets {
        let mut all = Buckets::default();
        self.to.functions.keys().for_each(|function| all.add(&self.times(function)));
        all
    }

    fn point(&self) -> Point {
        let errors = self.to.errors.iter().map(|(backend, count)| {
            (backend.clone(), count - self.from.errors.get(backend).copied().unwrap_or_default())
        });
        Point {
            connections: self.to.connections,
            entered: self.rate(|reading| reading.entered),
            left: self.rate(|reading| reading.left),
            pushes: self.rate(|reading| reading.pushes),
            p99: self.all_times().quantile(0.99),
            errors: errors.filter(|(_, count)| *count > 0.0).collect(),
        }
    }
}

/// The readings of the last seconds, and the points of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Past {
    recent: VecDeque<Reading>,
    mark: Reading,
    points: VecDeque<Point>,
}

impl Past {
    /// Adds a reading that is later than all previous readings.
    pub(super) fn add(&mut self, reading: Reading) {
        if self.recent.back().is_some_and(|last| reading.at < last.at + APART) {
            return;
        }
        while self.recent.get(1).is_some_and(|second| reading.at >= second.at + WINDOW) {
            self.recent.pop_front();
        }
        if reading.at >= self.mark.at + EVERY {
            self.points.push_back(Change { from: &self.mark, to: &reading }.point());
            if self.points.len() > POINTS {
                self.points.pop_front();
            }
            self.mark = reading.clone();
        }
        self.recent.push_back(reading);
    }

    /// Returns the change from about [`WINDOW`] ago until now, or `None` before the first reading.
    pub(super) fn latest(&self) -> Option<Change<'_>> {
        Some(Change { from: self.recent.front()?, to: self.recent.back()? })
    }

    /// Returns the points, the oldest first.
    pub(super) fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }

    /// Returns the failed calls in the last fifteen minutes, by backend.
    pub(super) fn errors(&self) -> BTreeMap<String, f64> {
        let mut errors = BTreeMap::new();
        let now = self.recent.back().map(|to| Change { from: &self.mark, to }.point());
        for (backend, count) in self.points.iter().chain(&now).flat_map(|point| &point.errors) {
            *errors.entry(backend.clone()).or_default() += count;
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: u64, pushes: f64) -> Reading {
        let errors = [("redis".to_owned(), pushes)].into();
        Reading { at: Duration::from_secs(seconds), pushes, errors, ..Reading::default() }
    }

    #[test]
    fn rates_are_of_the_last_ten_seconds() {
        let mut past = Past::default();
        assert!(past.latest().is_none());
        for second in 0..100 {
            past.add(reading(second, second as f64 * second as f64));
        }
        let latest = past.latest().unwrap();
        assert_eq!((latest.from.at.as_secs(), latest.to.at.as_secs()), (89, 99));
        assert_eq!(latest.rate(|reading| reading.pushes), 188.0);
        past.add(reading(99, 0.0));
        assert_eq!(past.recent.len(), 11, "twice at the same time");
    }

    #[test]
    fn a_day_leaves_fifteen_minutes() {
        let mut past = Past::default();
        for step in 0..24 * 60 * 12 {
            past.add(reading(step * 5, step as f64));
        }
        assert_eq!((past.points.len(), past.recent.len()), (POINTS, 3));
        assert!(past.points().all(|point| (point.pushes - 0.2).abs() < 0.01));
        let errors = past.errors()["redis"];
        assert!((180.0..=186.0).contains(&errors), "{errors}");
    }
}
