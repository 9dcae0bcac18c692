//! Which process of which machine this is, so that a later one on the same machine can tell that it is dead.
//!
//! Invariant: a process is held for dead only where that is certain: the same boot of the same machine, the same
//! namespaces of pids and of time, and its pid is gone, or is another process's by now. A pid alone proves nothing: in
//! another container it is somebody else's.
use std::fs;

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// A process, beyond the reuse of its pid and of its machine's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Boot, namespace of pids, namespace of time. A namespace's number is not given again while a process in it lives.
    place: String,
    pid: i32,
    /// In ticks since the machine's start.
    started: u64,
}

impl ProcessIdentity {
    /// This process's; none where the system does not say enough.
    #[must_use]
    pub fn current() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = |kind| Some(fs::read_link(format!("/proc/self/ns/{kind}")).ok()?.to_str()?.to_owned());
        // Kernels before 5.6 have one time for all.
        let time = namespace("time").unwrap_or_default();
        let place = format!("{} {} {time}", boot.trim(), namespace("pid")?);
        let pid = i32::try_from(std::process::id()).ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // Otherwise /proc shows another namespace's pids.
        let (shown, _) = stat.split_once(' ')?;
        let started = started(&stat)?;
        (shown.parse() == Ok(pid)).then_some(Self { place, pid, started })
    }

    /// Reads what [`ProcessIdentity::to_string`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, started) = text.rsplit_once('/')?;
        let (place, pid) = rest.rsplit_once('/')?;
        Some(Self { place: place.to_owned(), pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// Whether the other one is certainly dead, as this one, of the same machine, sees it.
    #[must_use]
    pub fn knows_dead(&self, other: &Self) -> bool {
        if self.place != other.place || self.pid == other.pid && self.started == other.started {
            return false;
        }
        match kill(Pid::from_raw(other.pid), None) {
            Err(Errno::ESRCH) => true,
            Ok(()) | Err(_) => {
                // /proc may hide the processes of others: in doubt, it lives.
                let stat = fs::read_to_string(format!("/proc/{}/stat", other.pid)).ok();
                stat.and_then(|stat| started(&stat)).is_some_and(|started| started != other.started)
            }
        }
    }
}

impl std::fmt::Display for ProcessIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.place, self.pid, self.started)
    }
}

/// Field 22 of /proc/PID/stat. The name in parentheses, field 2, may hold anything.
fn started(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_certainly_gone_is_known_dead() {
        let own = ProcessIdentity::current().expect("a process of Linux");
        assert_eq!(ProcessIdentity::parse(&own.to_string()), Some(own.clone()));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a child");
        let pid = i32::try_from(child.id()).expect("a pid");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a child's");
        let other = ProcessIdentity { pid, started: started(&stat).expect("a start"), ..own.clone() };
        assert!(!own.knows_dead(&own) && !own.knows_dead(&other), "it lives");
        let reused = ProcessIdentity { started: other.started - 1, ..other.clone() };
        assert!(own.knows_dead(&reused), "its pid is another's");
        let elsewhere = ProcessIdentity { place: "another boot".to_owned(), ..reused };
        assert!(!own.knows_dead(&elsewhere), "nothing is known of another machine");
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(own.knows_dead(&other), "it is gone");
    }
}
