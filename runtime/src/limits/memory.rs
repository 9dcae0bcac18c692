//! The memory that this process uses, and its limit.
//!
//! Invariant: the kernel is asked at most once in [`FRESH`], however many connections there are.
use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long an answer is used again.
const FRESH: Duration = Duration::from_secs(1);

/// Watches this process's resident memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// When the kernel was asked last, and how many bytes there were.
    last: Mutex<Option<(Instant, u64)>>,
}

impl Memory {
    /// Whether the process uses more than this.
    pub(super) fn is_above(&self, limit: u64) -> bool {
        if limit == u64::MAX {
            return false;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, bytes) = match last.filter(|(at, _)| at.elapsed() < FRESH) {
            Some(fresh) => fresh,
            None => *last.insert((Instant::now(), resident())),
        };
        bytes > limit
    }
}

/// The resident bytes of this process; 0 where the kernel does not tell.
fn resident() -> u64 {
    kibibytes("/proc/self/status", "VmRSS:").unwrap_or(0)
}

/// Nine tenths of the control group's limit, else of the machine's memory; `u64::MAX` where neither is known.
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
    // Version 1 of control groups shows a number near 2^63 where there is no limit.
    let limit = limits.filter(|limit| *limit < 1 << 60).min();
    limit.or_else(|| kibibytes("/proc/meminfo", "MemTotal:")).map_or(u64::MAX, |limit| limit / 10 * 9)
}

/// A value of `/proc` that is given in kB, in bytes.
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
