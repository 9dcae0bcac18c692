//! Lines that no filter leaves out: a panic, and the reason why the process ends. If the log is JSON, these lines are
//! JSON objects like all other lines.
//!
//! Invariant: a line that cannot be written changes nothing, because the exit code also reports the fault.
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{Write, stderr},
    panic, thread,
};

use serde::Serialize;
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

use super::LogFormat;

/// The fields of a line, in the order that all other lines have.
#[derive(Serialize)]
struct Line {
    timestamp: String,
    level: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    backtrace: Option<String>,
    target: &'static str,
}

/// Writes the reason why the process ends.
pub fn last_line(format: LogFormat, error: &dyn Display) {
    match format {
        LogFormat::Text => drop(writeln!(stderr(), "error: {error}")),
        LogFormat::Json => write(error.to_string(), None, "rollcall"),
    }
}

/// Writes a panic as a line of JSON from now on.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let message = format!("the thread {} {panic}", thread.name().unwrap_or("without a name"));
        let backtrace = Backtrace::capture();
        let captured = backtrace.status() == BacktraceStatus::Captured;
        write(message, captured.then(|| backtrace.to_string()), "panic");
    }));
}

fn write(message: String, backtrace: Option<String>, target: &'static str) {
    let mut timestamp = String::new();
    let formatted = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let line = Line { timestamp, level: "ERROR", message, backtrace, target };
    if let (Ok(()), Ok(mut line)) = (formatted, serde_json::to_vec(&line)) {
        line.push(b'\n');
        // The line is written at once, so that no other line is inside it.
        drop(stderr().write_all(&line));
    }
}
