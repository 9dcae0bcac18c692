//! The log: lines on stderr. Which are written may change while the process runs.
mod flood;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::FilterExt,
    fmt,
    layer::SubscriberExt,
    reload::{self, Handle},
    util::SubscriberInitExt,
};

use self::flood::LogFlood;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object, for programs.
    Json,
}

/// Which lines are written.
#[derive(Clone)]
pub struct LogFilter(Handle<EnvFilter, Registry>);

impl LogFilter {
    /// From now on lines are written that pass this filter, which was checked.
    pub fn set(&self, filter: &str) {
        // It fails only where the log is gone.
        let _ = self.0.reload(EnvFilter::new(filter));
    }
}

/// The layer by which spans are exported.
pub type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Begins to write the log, once in a process. `filter` was checked. `spans` gets its spans whatever is logged.
#[must_use]
pub fn init(filter: &str, format: LogFormat, spans: Option<SpanLayer>) -> LogFilter {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(filter));
    // Where a line cannot be written (a full disk), an error about it cannot be either, and would panic.
    let lines = fmt::layer().with_writer(stderr).log_internal_errors(false).with_ansi(stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(filter.and(LogFlood::default())).boxed();
    tracing_subscriber::registry().with(std::iter::once(lines).chain(spans).collect::<Vec<_>>()).init();
    LogFilter(handle)
}
