//! The log, which is written to stderr. The choice of its lines may change while the process runs.
mod flood;
mod unfiltered;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::FilterExt,
    fmt,
    layer::SubscriberExt,
    reload::{self, Handle},
    util::SubscriberInitExt,
};

pub use self::unfiltered::last_line;

use self::{flood::LogFlood, unfiltered::log_panics};

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// A JSON object for programs.
    Json,
}

/// The choice of the lines that are written.
#[derive(Clone)]
pub struct LogFilter(Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Writes the lines that pass this filter from now on. The caller has checked the filter.
    pub fn set(&self, filter: &str) {
        // This fails only if the log no longer exists.
        let _ = self.0.reload(EnvFilter::new(filter));
    }
}

/// The layer that exports spans.
pub type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Begins to write the log. It is called once in a process. The caller has checked `filter`. `spans` gets all its
/// spans, whatever is logged.
#[must_use]
pub fn init(filter: &str, format: LogFormat, spans: Option<SpanLayer>) -> LogFilter {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(filter));
    // If a line cannot be written (a full disk), an error about the line cannot be written either, and would panic.
    let lines = fmt::layer().with_writer(stderr).log_internal_errors(false).with_ansi(stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            log_panics();
            lines.json().flatten_event(true).boxed()
        }
    };
    let lines = lines.with_filter(filter.and(LogFlood::default())).boxed();
    tracing_subscriber::registry().with(std::iter::once(lines).chain(spans).collect::<Vec<_>>()).init();
    LogFilter(handle)
}
