//! The memory that this process uses, and its limit.
//!
//! Invariant: the kernel is asked at most once in [`FRESH`], however many connections there are.
use std::{fs, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an answer is reused.
const FRESH: Duration = Duration::from_secs(1);

/// Watches this process's resident memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// When the kernel was last asked, and the number of bytes in its answer.
    last: Mutex<Option<(Instant, u64)>>,
}

impl Memory {
    /// Returns whether the process uses more than this many bytes.
    pub(super) fn is_above(&self, limit: u64) -> bool {
        if limit == u64::MAX {
            return false;
        }
        let mut last = self.last.lock();
        let (_, bytes) = match last.filter(|(at, _)| at.elapsed() < FRESH) {
            Some(fresh) => fresh,
            None => *last.insert((Instant::now(), resident())),
        };
        bytes > limit
    }
}

/// Returns the resident bytes of this process, or 0 if the kernel does not say.
fn resident() -> u64 {
    kibibytes("/proc/self/status", "VmRSS:").unwrap_or(0)
}

/// Returns nine tenths of the control group's limit, or else of the machine's memory. Returns `u64::MAX` if neither is
/// known.
#[must_use]
pub fn allowance() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let files = [
        format!("/sys/fs/cgroup{own}/memory.max"),
        "/sys/fs/cgroup/memory.max".to_owned(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ];
    let limits = files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    // If there is no limit, version 1 of control groups shows a number near 2^63.
    let limit = limits.filter(|limit| *limit < 1 << 60).min();
    limit.or_else(|| kibibytes("/proc/meminfo", "MemTotal:")).map_or(u64::MAX, |limit| limit / 10 * 9)
}

/// Returns a value of `/proc`, which is in kB, in bytes.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_short_above_its_limit() {
        assert!(resident() > 1 << 20, "a test has more than that");
        let memory = Memory::default();
        assert!(memory.is_above(1) && !memory.is_above(1 << 50) && !memory.is_above(u64::MAX));
        assert!((1 << 20..u64::MAX).contains(&allowance()), "this machine has some");
    }
}
