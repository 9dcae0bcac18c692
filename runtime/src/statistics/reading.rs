//! The values of this process's metrics at one time, read from the text of `/metrics`.
//!
//! Invariant: a metric that is missing counts as zero, because a metric is missing until its first event.
use std::{collections::BTreeMap, time::Duration};

use crate::process_metrics;
use rollcall_base::names;

/// The metrics at one time. Counters are sums since the start of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// The time of the reading, counted from the start of the process.
    pub(super) at: Duration,
    pub(super) connections: f64,
    pub(super) sessions: f64,
    pub(super) classrooms: f64,
    pub(super) lessons: f64,
    /// Clients that the handler of connect let in.
    pub(super) entered: f64,
    /// Connections that ended.
    pub(super) left: f64,
    pub(super) pushes: f64,
    pub(super) outbox_rows: f64,
    /// The lag of the outbox in seconds.
    pub(super) outbox_lag: f64,
    pub(super) outbox_aside: f64,
    /// The resident memory in bytes.
    pub(super) memory: f64,
    /// The processor time in seconds.
    pub(super) cpu: f64,
    pub(super) open_files: f64,
    pub(super) max_files: f64,
    pub(super) functions: BTreeMap<String, Function>,
    /// Failed calls, by backend.
    pub(super) errors: BTreeMap<String, f64>,
}

/// The runs of a handler.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Function {
    pub(super) runs: f64,
    /// Runs that did not succeed.
    pub(super) failed: f64,
    pub(super) times: Buckets,
}

/// The cumulative counts by their upper bounds in seconds, in ascending order. The last bound is infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets(pub(super) Vec<(f64, f64)>);

impl Buckets {
    /// Returns the counts since `earlier`.
    pub(super) fn since(&self, earlier: Option<&Self>) -> Self {
        let before = |place: usize| earlier.and_then(|earlier| earlier.0.get(place)).map_or(0.0, |(_, count)| *count);
        let rest = |(place, (bound, count)): (usize, &(f64, f64))| (*bound, (count - before(place)).max(0.0));
        Self(self.0.iter().enumerate().map(rest).collect())
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            return self.0.clone_from(&other.0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|((_, sum), (_, count))| *sum += count);
    }

    /// Returns the time in seconds that this share of the runs did not exceed, as Prometheus estimates it: spread
    /// evenly within a bucket. Returns `None` if there were no runs.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let (_, total) = self.0.last()?;
        if *total <= 0.0 {
            return None;
        }
        let rank = share * total;
        let (mut from, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank {
                let within = if *count > below { (rank - below) / (count - below) } else { 1.0 };
                // For values above the highest finite bound, only that bound is known.
                return Some(if bound.is_finite() { from + (bound - from) * within } else { from });
            }
            (from, below) = (*bound, *count);
        }
        None
    }
}

impl Reading {
    /// Reads the text format of Prometheus.
    pub(super) fn parse(at: Duration, text: &str) -> Self {
        let mut reading = Self { at, ..Self::default() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            reading.add(name, labels, value);
        }
        reading
    }

    fn add(&mut self, name: &str, labels: &str, value: f64) {
        let named = |key: &str| label(labels, key).unwrap_or_default().to_owned();
        match name {
            names::CONNECTIONS => self.connections += value,
            names::SESSIONS => self.sessions += value,
            names::ROOMS if label(labels, "kind") == Some("lesson") => self.lessons += value,
            names::ROOMS => self.classrooms += value,
            names::DISCONNECTS => self.left += value,
            names::PUSHES => self.pushes += value,
            names::OUTBOX_ROWS => self.outbox_rows += value,
            names::OUTBOX_LAG => self.outbox_lag = self.outbox_lag.max(value),
            names::OUTBOX_ASIDE => self.outbox_aside += value,
            names::BACKEND_ERRORS => *self.errors.entry(named("backend")).or_default() += value,
            names::INVOCATIONS => self.add_runs(labels, value),
            process_metrics::RESIDENT_MEMORY => self.memory = value,
            process_metrics::CPU_SECONDS => self.cpu = value,
            process_metrics::OPEN_FDS => self.open_files = value,
            process_metrics::MAX_FDS => self.max_files = value,
            _ => {
                let bound = label(labels, "le").and_then(|bound| bound.parse().ok());
                if let Some(bound) = bound.filter(|_| name.strip_suffix("_bucket") == Some(names::DURATION)) {
                    self.functions.entry(named("function")).or_default().times.0.push((bound, value));
                }
            }
        }
    }

    fn add_runs(&mut self, labels: &str, value: f64) {
        let name = label(labels, "function").unwrap_or_default();
        let success = label(labels, "outcome") == Some("success");
        if success && name == "connect" {
            self.entered += value;
        }
        let function = self.functions.entry(name.to_owned()).or_default();
        function.runs += value;
        function.failed += if success { 0.0 } else { value };
    }
}

/// Returns a label's value. The values of our labels come from closed sets, and none needs an escape.
fn label<'a>(labels: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = labels;
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let (value, next) = after.split_once('"')?;
        if name.trim_start_matches([',', ' ']) == key {
            return Some(value);
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP rollcall_connections Open WebSocket connections.
# TYPE rollcall_connections gauge
rollcall_connections 3
rollcall_rooms{kind=\"classroom\"} 2
rollcall_rooms{kind=\"lesson\"} 1
rollcall_function_invocations_total{function=\"connect\",outcome=\"success\"} 5
rollcall_function_invocations_total{function=\"connect\",outcome=\"error\"} 2
rollcall_backend_errors_total{backend=\"redis\",operation=\"join\"} 1
rollcall_backend_errors_total{backend=\"redis\",operation=\"leave\"} 2
rollcall_function_duration_seconds_bucket{function=\"connect\",le=\"0.001\"} 0
rollcall_function_duration_seconds_bucket{function=\"connect\",le=\"0.002\"} 4
rollcall_function_duration_seconds_bucket{function=\"connect\",le=\"+Inf\"} 4
process_resident_memory_bytes 1000
nonsense
";

    #[test]
    fn series_are_found_by_their_names_and_labels() {
        let reading = Reading::parse(Duration::from_secs(1), TEXT);
        assert_eq!((reading.connections, reading.classrooms, reading.lessons), (3.0, 2.0, 1.0));
        assert_eq!((reading.entered, reading.memory, reading.pushes), (5.0, 1000.0, 0.0));
        assert_eq!(reading.errors, [("redis".to_owned(), 3.0)].into());
        let connect = &reading.functions["connect"];
        assert_eq!((connect.runs, connect.failed), (7.0, 2.0));
        assert_eq!(connect.times.0, [(0.001, 0.0), (0.002, 4.0), (f64::INFINITY, 4.0)]);
    }

    #[test]
    fn quantiles_are_spread_evenly_within_a_bucket() {
        let times = Buckets(vec![(0.001, 0.0), (0.002, 4.0), (f64::INFINITY, 5.0)]);
        assert_eq!(times.quantile(0.4), Some(0.0015));
        assert_eq!(times.quantile(0.99), Some(0.002), "above the highest bound");
        assert_eq!(times.since(Some(&times)).quantile(0.5), None);
        let earlier = Buckets(vec![(0.001, 0.0), (0.002, 4.0), (f64::INFINITY, 4.0)]);
        assert_eq!(times.since(Some(&earlier)).quantile(0.5), Some(0.002));
        assert_eq!(Buckets::default().quantile(0.5), None);
    }
}
