//! The JSON of a node's statistics.
//!
//! Invariant: the JSON never has more than [`MAX_BYTES`]. If it is too long, handlers are left out, the least busy
//! first, and then the past.
use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    MAX_BYTES,
    past::{Change, EVERY, Past, Point},
    reading::Reading,
};

/// A node's report about itself. Rates are per second, times are in milliseconds, sizes are in bytes.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    version: &'static str,
    up_s: u64,
    draining: bool,
    connections: u64,
    sessions: u64,
    classrooms: u64,
    lessons: u64,
    entered: f64,
    left: f64,
    pushes: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    memory: u64,
    /// How many processor cores are busy.
    cpu: f64,
    open_files: u64,
    max_files: u64,
    outbox: Outbox,
    /// Failed calls in the last fifteen minutes, by backend.
    errors: BTreeMap<String, u64>,
    /// The handlers, the busiest first.
    functions: Vec<Function>,
    past: Series,
}

#[derive(Debug, Default, Serialize)]
struct Outbox {
    rows: u64,
    lag_s: f64,
    aside: u64,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    runs: f64,
    failed: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// Values of the past, the oldest first.
#[derive(Debug, Default, Serialize)]
struct Series {
    every_s: u64,
    connections: Vec<u64>,
    entered: Vec<f64>,
    left: Vec<f64>,
    pushes: Vec<f64>,
    p99_ms: Vec<Option<f64>>,
}

/// Rounds a number to three digits, which are enough for a display.
fn short(number: f64) -> f64 {
    match number.abs() {
        large if large >= 100.0 => number.round(),
        large if large >= 10.0 => (number * 10.0).round() / 10.0,
        _ => (number * 100.0).round() / 100.0,
    }
}

fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

fn millis(seconds: Option<f64>) -> Option<f64> {
    seconds.map(|seconds| short(seconds * 1000.0))
}

impl Report {
    pub(super) fn new(past: &Past, draining: bool) -> Self {
        let Some(latest) = past.latest() else { return Self::default() };
        let Reading { connections, sessions, classrooms, lessons, outbox_rows, outbox_lag, outbox_aside, .. } =
            *latest.to;
        let times = latest.all_times();
        let mut functions: Vec<_> = latest.to.functions.keys().map(|name| function(&latest, name)).collect();
        functions.sort_by(|one, other| other.runs.total_cmp(&one.runs));
        let points = |value: fn(&Point) -> f64| past.points().map(|point| short(value(point))).collect::<Vec<_>>();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            up_s: latest.to.at.as_secs(),
            draining,
            connections: whole(connections),
            sessions: whole(sessions),
            classrooms: whole(classrooms),
            lessons: whole(lessons),
            entered: short(latest.rate(|reading| reading.entered)),
            left: short(latest.rate(|reading| reading.left)),
            pushes: short(latest.rate(|reading| reading.pushes)),
            p50_ms: millis(times.quantile(0.5)),
            p99_ms: millis(times.quantile(0.99)),
            memory: whole(latest.to.memory),
            cpu: short(latest.rate(|reading| reading.cpu)),
            open_files: whole(latest.to.open_files),
            max_files: whole(latest.to.max_files),
            outbox: Outbox { rows: whole(outbox_rows), lag_s: short(outbox_lag), aside: whole(outbox_aside) },
            errors: past.errors().into_iter().map(|(backend, count)| (backend, whole(count))).collect(),
            functions,
            past: Series {
                every_s: EVERY.as_secs(),
                connections: past.points().map(|point| whole(point.connections)).collect(),
                entered: points(|point| point.entered),
                left: points(|point| point.left),
                pushes: points(|point| point.pushes),
                p99_ms: past.points().map(|point| millis(point.p99)).collect(),
            },
        }
    }

    pub(super) fn json(mut self) -> String {
        loop {
            let text = serde_json::to_string(&self).expect("texts and numbers are JSON");
            if text.len() <= MAX_BYTES {
                return text;
            }
            if self.functions.pop().is_none() {
                self.past = Series::default();
                self.errors.clear();
            }
        }
    }
}

fn function(change: &Change<'_>, name: &str) -> Function {
    let times = change.times(name);
    let count = |value: fn(&super::reading::Function) -> f64| {
        short(change.rate(|reading| reading.functions.get(name).map_or(0.0, value)))
    };
    Function {
        name: name.to_owned(),
        runs: count(|function| function.runs),
        failed: count(|function| function.failed),
        p50_ms: millis(times.quantile(0.5)),
        p99_ms: millis(times.quantile(0.99)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::statistics::reading::{Buckets, Function as Runs};

    /// Returns the readings of a busy node whose app has this many handlers.
    fn busy(functions: usize) -> Past {
        let mut past = Past::default();
        for step in 0..200_u32 {
            let total = f64::from(step) * 123_456.7;
            let times = Buckets(vec![(0.001, total / 2.0), (0.002, total), (f64::INFINITY, total)]);
            let runs = Runs { runs: total, failed: total / 3.0, times };
            past.add(Reading {
                at: Duration::from_secs(u64::from(step) * 5),
                connections: 18_000.0,
                entered: total,
                left: total,
                pushes: total,
                functions: (0..functions).map(|n| (format!("a_handler_of_an_app_{n}"), runs.clone())).collect(),
                errors: [("postgres".to_owned(), total)].into(),
                ..Reading::default()
            });
        }
        past
    }

    #[test]
    fn it_says_how_fast_and_how_busy_a_node_is() {
        let report = Report::new(&busy(2), true);
        assert_eq!((report.connections, report.draining, report.past.connections.len()), (18_000, true, 30));
        assert_eq!(
            (report.entered, report.functions[0].runs, report.functions[0].failed),
            (24_691.0, 24_691.0, 8_230.0)
        );
        assert_eq!((report.p50_ms, report.p99_ms), (Some(1.0), Some(1.98)));
    }

    #[test]
    fn it_never_has_more_than_four_kibibytes() {
        for (functions, whole) in [(10, true), (100, false), (0, true)] {
            let text = Report::new(&busy(functions), false).json();
            assert!(text.len() <= MAX_BYTES, "{functions}: {}", text.len());
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read["functions"].as_array().unwrap().len() == functions, whole);
            assert_eq!(read["past"]["pushes"].as_array().unwrap().len(), 30);
        }
        assert!(Report::new(&Past::default(), false).json().len() < MAX_BYTES);
    }
}
