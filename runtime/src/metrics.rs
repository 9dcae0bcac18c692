//! The recorder of `/metrics` (PROTOCOL 8), with a help text for every name, buckets for histograms, and `process_*`.
//!
//! Invariant: memory does not grow while `/metrics` is not read ([`Metrics::upkeep`]).
use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::process_metrics;
use rollcall_base::names;

/// The upper bounds in seconds, from a push within a node to a handler at its timeout.
const BUCKETS: [f64; 16] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
/// How often the samples of histograms are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The recorder cannot be built.
    #[error("metrics: {0}")]
    Build(#[from] BuildError),
    /// This process already has a recorder.
    #[error("metrics: {0}")]
    Installed(#[from] metrics::SetRecorderError<PrometheusRecorder>),
}

/// The recorded metrics.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Records everything that this process measures from now on.
    ///
    /// # Errors
    /// Returns a [`MetricsError`] if the recorder cannot be built or is installed already.
    pub fn install() -> Result<Self, MetricsError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder)?;
        describe();
        begin();
        Ok(Self(handle))
    }

    /// Returns a recorder for a test. Each test needs its own, because tests run in parallel.
    #[cfg(test)]
    pub(crate) fn local() -> (Self, PrometheusRecorder) {
        let recorder = recorder().unwrap();
        metrics::with_local_recorder(&recorder, describe);
        (Self(recorder.handle()), recorder)
    }

    /// Returns the text of `/metrics`.
    #[must_use]
    pub fn render(&self) -> String {
        process_metrics::record();
        self.0.render()
    }

    /// Keeps memory bounded while `/metrics` is not read. This function never returns, so the caller spawns it.
    pub async fn upkeep(self) {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for name in [names::DURATION, names::PUBLISH_TO_PUSH, names::POOL_WAIT] {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.into()), &BUCKETS)?;
    }
    Ok(builder.build_recorder())
}

/// Sets to 0 the metrics whose first event must count, because a rate does not include the event with which a series
/// begins.
fn begin() {
    for gauge in [names::CONNECTIONS, names::SESSIONS] {
        metrics::gauge!(gauge).set(0.0);
    }
    for kind in ["classroom", "lesson"] {
        metrics::gauge!(names::ROOMS, "kind" => kind).set(0.0);
    }
    for counter in [names::PUSHES, names::PUSH_BYTES] {
        metrics::counter!(counter).increment(0);
    }
    metrics::counter!(names::UPGRADES, "outcome" => "accepted").increment(0);
    let _ = metrics::histogram!(names::PUBLISH_TO_PUSH);
}

fn describe() {
    describe_gauge!(names::CONNECTIONS, Unit::Count, "Open WebSocket connections.");
    describe_gauge!(names::CONNECTIONS_LIMIT, Unit::Count, "The most WebSocket connections that this node takes.");
    describe_gauge!(names::MEMORY_LIMIT, Unit::Bytes, "Bytes of memory above which this node takes no connection.");
    describe_gauge!(names::SESSIONS, Unit::Count, "Sessions whose connection is on this node.");
    describe_gauge!(names::ROOMS, Unit::Count, "Rooms with members on this node, by kind.");
    describe_counter!(names::UPGRADES, Unit::Count, "Upgrade requests, by outcome.");
    describe_counter!(names::INVOCATIONS, Unit::Count, "Runs of handlers, by handler (function) and outcome.");
    describe_histogram!(names::DURATION, Unit::Seconds, "Run time of handlers in seconds, by handler (function).");
    describe_gauge!(names::IN_FLIGHT, Unit::Count, "Handlers that are running, by handler (function).");
    describe_counter!(names::PUSHES, Unit::Count, "Events queued to clients.");
    describe_counter!(names::PUSH_BYTES, Unit::Bytes, "Bytes of events queued to clients.");
    describe_histogram!(
        names::PUBLISH_TO_PUSH,
        Unit::Seconds,
        "Seconds from an event's publication to the sockets of the room's members."
    );
    describe_counter!(names::DISCONNECTS, Unit::Count, "Connections that ended, by reason.");
    describe_counter!(names::DROPPED, Unit::Count, "Events, requests and connections that were dropped, by reason.");
    describe_gauge!(names::POOL_CONNECTIONS, Unit::Count, "Connections to backends, by pool and state.");
    describe_histogram!(names::POOL_WAIT, Unit::Seconds, "Seconds waited for a connection of a pool, by pool.");
    describe_counter!(names::BACKEND_ERRORS, Unit::Count, "Failed calls to backends, by backend and operation.");
    describe_counter!(names::TOKENS_REFUSED, Unit::Count, "Tokens that were refused, by reason.");
    describe_counter!(names::ADMIN_TOKENS_REFUSED, Unit::Count, "Wrong tokens on the admin address.");
    describe_counter!(names::AUTHZ, Unit::Count, "Questions to the authorization service, by outcome.");
    describe_gauge!(names::LEASE, Unit::Seconds, "How long this node's lease is, in seconds.");
    describe_gauge!(names::LEASE_RENEWED, Unit::Seconds, "When this node's lease was renewed last, in Unix seconds.");
    describe_gauge!(
        names::GHOST_BOUND,
        Unit::Seconds,
        "The longest time for which an agent that is gone is shown as present, while the backends answer, in seconds."
    );
    describe_gauge!(
        names::DRAIN_DEADLINE,
        Unit::Seconds,
        "When the drain that runs must be over, in Unix seconds; 0 while none runs."
    );
    describe_gauge!(names::STREAM_BYTES, Unit::Bytes, "Bytes of the stream in NATS, as this node was told last.");
    describe_gauge!(names::STREAM_LIMIT, Unit::Bytes, "The most bytes that the stream in NATS may have.");
    describe_gauge!(names::OUTBOX_ROWS, Unit::Count, "Events in the outbox that are not published yet.");
    describe_gauge!(names::OUTBOX_LAG, Unit::Seconds, "Age in seconds of the oldest event in the outbox.");
    describe_counter!(names::OUTBOX_SET_ASIDE, Unit::Count, "Events of the outbox that were quarantined, by reason.");
    describe_gauge!(names::OUTBOX_ASIDE, Unit::Count, "Events of the outbox that are in quarantine and tried again.");
    describe_gauge!(
        names::WEBHOOK_LAG,
        Unit::Seconds,
        "Age in seconds of the oldest event that waits for the webhook's receiver, on the node that delivers."
    );
    describe_counter!(names::WEBHOOK_EVENTS, Unit::Count, "Events that the webhook's receiver took.");
    describe_counter!(names::WEBHOOK_RETRIES, Unit::Count, "Requests that the webhook's receiver did not take.");
    describe_gauge!(
        names::WEBHOOK_PARKED,
        Unit::Count,
        "Classrooms whose events the webhook's receiver refuses, on the node that delivers."
    );
    describe_counter!(
        names::WEBHOOK_DROPPED,
        Unit::Count,
        "Events that the webhook's receiver never got, by reason; of a stream's old ones, offsets of any events count."
    );
    describe_counter!(
        names::HISTORY_DELETED,
        Unit::Count,
        "Rows of the history that were deleted because of their age."
    );
    describe_gauge!(names::REFUSED_ENDS, Unit::Count, "Sessions whose end the database refuses; it is tried again.");
    describe_gauge!(
        names::UNDOS,
        Unit::Count,
        "Connects, joins and leaves of a lesson that failed or were cut off, and are being undone."
    );
    describe_counter!(
        names::SESSION_CHECKS,
        Unit::Count,
        "How often the sessions of this node were compared with their rows, because the database had lost commits."
    );
    describe_counter!(
        names::LOG_LINES_OMITTED,
        Unit::Count,
        "Log lines that were left out, because the same place in the code wrote too many."
    );
    describe_counter!(names::RELOADS, Unit::Count, "How often the settings were read again on SIGHUP, by outcome.");
    describe_counter!(names::TRACE_EXPORTS, Unit::Count, "Requests with spans to the collector, by outcome.");
    describe_gauge!(names::BUILD_INFO, Unit::Count, "Always 1; the label is the version.");
    metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    process_metrics::describe();
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    /// Records each metric once, as a gateway does.
    fn everything() -> String {
        let (metrics, recorder) = Metrics::local();
        metrics::with_local_recorder(&recorder, || {
            for gauge in [
                names::CONNECTIONS,
                names::CONNECTIONS_LIMIT,
                names::MEMORY_LIMIT,
                names::LEASE,
                names::LEASE_RENEWED,
                names::GHOST_BOUND,
                names::DRAIN_DEADLINE,
                names::STREAM_BYTES,
                names::STREAM_LIMIT,
                names::SESSIONS,
                names::OUTBOX_ROWS,
                names::OUTBOX_LAG,
                names::OUTBOX_ASIDE,
                names::REFUSED_ENDS,
                names::UNDOS,
                names::WEBHOOK_LAG,
                names::WEBHOOK_PARKED,
            ] {
                metrics::gauge!(gauge).set(2.0);
            }
            metrics::gauge!(names::ROOMS, "kind" => "lesson").set(1.0);
            metrics::gauge!(names::IN_FLIGHT, "function" => "join_lesson").set(1.0);
            metrics::gauge!(names::POOL_CONNECTIONS, "pool" => "postgres", "state" => "idle").set(1.0);
            metrics::counter!(names::PUSHES).increment(1);
            metrics::counter!(names::PUSH_BYTES).increment(100);
            for counter in [names::UPGRADES, names::DISCONNECTS, names::DROPPED] {
                metrics::counter!(counter, "reason" => "closed").increment(1);
            }
            metrics::counter!(names::INVOCATIONS, "function" => "unknown", "outcome" => "refused").increment(1);
            metrics::counter!(names::BACKEND_ERRORS, "backend" => "redis", "operation" => "join").increment(1);
            metrics::counter!(names::OUTBOX_SET_ASIDE, "reason" => "refused").increment(1);
            metrics::counter!(names::TOKENS_REFUSED, "reason" => "expired").increment(1);
            metrics::counter!(names::AUTHZ, "outcome" => "yes").increment(1);
            let plain = [names::SESSION_CHECKS, names::LOG_LINES_OMITTED, names::HISTORY_DELETED];
            for counter in plain.into_iter().chain([names::WEBHOOK_EVENTS, names::WEBHOOK_RETRIES]) {
                metrics::counter!(counter).increment(1);
            }
            metrics::counter!(names::WEBHOOK_DROPPED, "reason" => "refused").increment(1);
            metrics::histogram!(names::DURATION, "function" => "join_lesson").record(0.003);
            metrics::histogram!(names::PUBLISH_TO_PUSH).record(0.003);
            metrics::histogram!(names::POOL_WAIT, "pool" => "postgres").record(0.003);
            metrics.render()
        })
    }

    #[test]
    fn promtool_has_nothing_to_say() {
        let text = everything();
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool runs; it is in Debian's package prometheus (make setup installs it)");
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
    }

    #[test]
    fn what_is_asked_for_stands_at_0_before_anything_has_happened() {
        let (metrics, recorder) = Metrics::local();
        metrics::with_local_recorder(&recorder, begin);
        let text = metrics.render();
        let series = ["connections", "sessions", "rooms{kind=\"classroom\"}", "rooms{kind=\"lesson\"}", "pushes_total"];
        for series in
            series.into_iter().chain(["upgrades_total{outcome=\"accepted\"}", "publish_to_push_seconds_count"])
        {
            assert!(text.contains(&format!("\nrollcall_{series} 0\n")), "{series} in\n{text}");
        }
    }

    #[test]
    fn histograms_have_buckets_and_every_name_a_help() {
        let text = everything();
        for name in [names::DURATION, names::PUBLISH_TO_PUSH, names::POOL_WAIT] {
            assert!(text.contains(&format!("# TYPE {name} histogram")), "{name} in\n{text}");
        }
        assert!(text.contains("rollcall_function_duration_seconds_bucket{function=\"join_lesson\",le=\"0.005\"} 1"));
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in names {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        for process in ["process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes"] {
            assert!(text.contains(&format!("\n{process} ")), "{process}");
        }
        assert!(text.contains(concat!("rollcall_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
    }

    /// Returns the words of a text that are names of our metrics, without the endings of a histogram's series.
    fn named(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let ends = ["_bucket", "_sum", "_count"];
        let metric = |word| ends.iter().find_map(|end| str::strip_suffix(word, end)).unwrap_or(word);
        words.filter(|word| word.starts_with("rollcall_")).map(metric).collect()
    }

    #[test]
    fn every_metric_is_on_the_page_and_no_alert_or_panel_names_another() {
        let all: BTreeSet<_> = names::ALL.iter().copied().collect();
        let page = include_str!("../deploy/metrics.md");
        let alerts = include_str!("../deploy/helm/rollcall/files/alerts.yml");
        assert_eq!(named(page), all, "runtime/deploy/metrics.md says what each is, and what to do when it moves");
        let contract = include_str!("../../schema/PROTOCOL.md");
        let unknown = |name: &&str| !contract.contains(&format!("`{}`", &name["rollcall_".len()..]));
        assert_eq!(all.iter().copied().find(unknown), None, "PROTOCOL 8 lists it");
        for text in [alerts, include_str!("../deploy/helm/rollcall/files/dashboard.json")] {
            assert!(named(text).is_subset(&all), "{:?}", named(text).difference(&all));
        }
        for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            assert!(
                page.contains(&format!("\n### {alert}\n")),
                "runtime/deploy/metrics.md says what to do about {alert}"
            );
        }
    }
}
