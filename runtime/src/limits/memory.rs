//! How much memory this process has, and may have.
//!
//! Invariant: the kernel is asked at most once in [`FRESH`], however many connections come.
use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(1);

/// Watches this process's resident memory.
#[derive(Debug)]
pub(super) struct Memory {
    most: u64,
    last: Mutex<Option<(Instant, bool)>>,
}

impl Memory {
    pub(super) fn new(most: u64) -> Self {
        Self { most, last: Mutex::default() }
    }

    /// Whether there is no room for more.
    pub(super) fn short(&self) -> bool {
        if self.most == u64::MAX {
            return false;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, short)) = *last
            && at.elapsed() < FRESH
        {
            return short;
        }
        let short = resident() > self.most;
        *last = Some((Instant::now(), short));
        short
    }
}

/// Bytes of this process in memory; 0 where the kernel does not say.
fn resident() -> u64 {
    kibibytes("/proc/self/status", "VmRSS:").unwrap_or(0)
}

/// Nine tenths of what the control group allows, else of what the machine has; no limit where nobody says.
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
    // Without a limit, version 1 shows a number near 2^63.
    let limit = limits.filter(|limit| *limit < 1 << 60).min();
    limit.or_else(|| kibibytes("/proc/meminfo", "MemTotal:")).map_or(u64::MAX, |limit| limit / 10 * 9)
}

/// A line of `/proc` that is in kB, in bytes.
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
        assert!(Memory::new(1).short());
        assert!(!Memory::new(1 << 50).short());
        assert!(!Memory::new(u64::MAX).short());
        assert!((1 << 20..u64::MAX).contains(&allowance()), "this machine has some");
    }
}
