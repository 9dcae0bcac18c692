//! The identity of a process on its machine, by which a later process there can tell that it is dead.
//!
//! Invariant: a process counts as dead only if that is certain: the machine, its boot, and the namespaces of pids and
//! of time are the same, and either no process has its pid, or the process with its pid started at another time. A pid
//! alone proves nothing, because a process in another container may have the same pid.
use std::fs;

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// The identity of a process. Unlike a pid and a machine's name, it is never reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The boot, the namespace of pids and the namespace of time. The number of a namespace is not reused while a
    /// process in it lives.
    environment: String,
    pid: i32,
    /// When the process started, in ticks since the machine's start.
    started: u64,
}

impl ProcessIdentity {
    /// Returns this process's identity, or `None` if the system does not show all parts of it.
    #[must_use]
    pub fn current() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = |kind| Some(fs::read_link(format!("/proc/self/ns/{kind}")).ok()?.to_str()?.to_owned());
        // Kernels before 5.6 have no namespaces of time.
        let time = namespace("time").unwrap_or_default();
        let environment = format!("{} {} {time}", boot.trim(), namespace("pid")?);
        let pid = i32::try_from(std::process::id()).ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // If this fails, /proc shows the pids of another namespace.
        let (shown, _) = stat.split_once(' ')?;
        let started = started(&stat)?;
        (shown.parse() == Ok(pid)).then_some(Self { environment, pid, started })
    }

    /// Parses the text that [`ProcessIdentity::to_string`] makes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, started) = text.rsplit_once('/')?;
        let (environment, pid) = rest.rsplit_once('/')?;
        Some(Self { environment: environment.to_owned(), pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// Returns whether this process can tell that the other one is certainly dead.
    #[must_use]
    pub fn knows_dead(&self, other: &Self) -> bool {
        if self.environment != other.environment || self.pid == other.pid && self.started == other.started {
            return false;
        }
        match kill(Pid::from_raw(other.pid), None) {
            Err(Errno::ESRCH) => true,
            Ok(()) | Err(_) => {
                // /proc may hide the processes of other users. If in doubt, the process counts as alive.
                let stat = fs::read_to_string(format!("/proc/{}/stat", other.pid)).ok();
                stat.and_then(|stat| started(&stat)).is_some_and(|started| started != other.started)
            }
        }
    }
}

impl std::fmt::Display for ProcessIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.environment, self.pid, self.started)
    }
}

fn started(stat: &str) -> Option<u64> {
    stat_field(stat, 22)
}

/// Returns a number of `/proc/PID/stat`, by the field's number in proc(5), which must be above 2. Field 2, the name in
/// parentheses, may contain any character.
#[must_use]
pub fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
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
        let elsewhere = ProcessIdentity { environment: "another boot".to_owned(), ..reused };
        assert!(!own.knows_dead(&elsewhere), "nothing is known of another machine");
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(own.knows_dead(&other), "it is gone");
    }
}
