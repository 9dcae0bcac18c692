//! The metrics `process_*`: data of the system about this process, with the names of Prometheus' client libraries.
//!
//! Invariant: a value that the system does not give is left out, so a metric never shows a number that was not
//! measured.
use std::{fs, sync::LazyLock};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use nix::{
    sys::resource::{RLIM_INFINITY, Resource, getrlimit},
    unistd::{SysconfVar, sysconf},
};
use rollcall_base::process::stat_field;

pub(crate) const CPU_SECONDS: &str = "process_cpu_seconds_total";
pub(crate) const OPEN_FDS: &str = "process_open_fds";
pub(crate) const MAX_FDS: &str = "process_max_fds";
const VIRTUAL_MEMORY: &str = "process_virtual_memory_bytes";
const MAX_VIRTUAL_MEMORY: &str = "process_virtual_memory_max_bytes";
pub(crate) const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
const START_TIME: &str = "process_start_time_seconds";
const THREADS: &str = "process_threads";

/// When the machine started, in Unix seconds. It is read once, because it stays the same.
static BOOT_TIME: LazyLock<Option<u64>> =
    LazyLock::new(|| fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text)));

/// Describes the metrics to the recorder.
pub(crate) fn describe() {
    describe_counter!(CPU_SECONDS, Unit::Seconds, "Processor time that this process has used, in seconds.");
    describe_gauge!(OPEN_FDS, Unit::Count, "Open file descriptors.");
    describe_gauge!(MAX_FDS, Unit::Count, "The most open file descriptors that are allowed; 0: no limit.");
    describe_gauge!(VIRTUAL_MEMORY, Unit::Bytes, "Virtual memory, in bytes.");
    describe_gauge!(MAX_VIRTUAL_MEMORY, Unit::Bytes, "The most virtual memory that is allowed, in bytes; 0: no limit.");
    describe_gauge!(RESIDENT_MEMORY, Unit::Bytes, "Resident memory, in bytes.");
    describe_gauge!(START_TIME, Unit::Seconds, "When this process started, in Unix seconds.");
    describe_gauge!(THREADS, Unit::Count, "Threads of this process.");
}

/// Measures and records the metrics. This reads one file of `/proc` and one directory.
pub(crate) fn record() {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) {
        gauge!(THREADS).set(stat.threads as f64);
        gauge!(VIRTUAL_MEMORY).set(stat.virtual_bytes as f64);
        if let Some(page) = unit(SysconfVar::PAGE_SIZE) {
            gauge!(RESIDENT_MEMORY).set((stat.resident_pages * page) as f64);
        }
        if let Some(ticks) = unit(SysconfVar::CLK_TCK) {
            counter!(CPU_SECONDS).absolute(stat.cpu / ticks);
            if let Some(boot) = *BOOT_TIME {
                gauge!(START_TIME).set((boot + stat.started / ticks) as f64);
            }
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of the open files is this directory.
        gauge!(OPEN_FDS).set(open.count().saturating_sub(1) as f64);
    }
    for (name, resource) in [(MAX_FDS, Resource::RLIMIT_NOFILE), (MAX_VIRTUAL_MEMORY, Resource::RLIMIT_AS)] {
        if let Ok((limit, _)) = getrlimit(resource) {
            gauge!(name).set(if limit == RLIM_INFINITY { 0.0 } else { limit as f64 });
        }
    }
}

/// Returns the number of ticks in a second, or of bytes in a page.
fn unit(variable: SysconfVar) -> Option<u64> {
    let value = sysconf(variable).ok().flatten()?;
    u64::try_from(value).ok().filter(|value| *value > 0)
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// The processor time of user and system, in ticks.
    cpu: u64,
    threads: u64,
    /// The start of the process, in ticks since the machine's start.
    started: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        let field = |number| stat_field(text, number);
        Some(Self {
            cpu: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Returns when the machine started, in Unix seconds, from the text of `/proc/stat`.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_shifts_no_field() {
        let text =
            "7 (a) b) S 1 7 7 0 -1 4194560 9 8 7 6 250 50 3 2 20 0 5 0 1234 4096000 300 18446744073709551615 1\n";
        let stat = Stat { cpu: 300, threads: 5, started: 1234, virtual_bytes: 4_096_000, resident_pages: 300 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu  1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
    }
}
