//! Signals to a server and to the processes that it started.

use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait::poll;

const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Stops a process and then its children, and returns when they have stopped. The process is the first, so that it
/// cannot start a new child.
pub(crate) fn pause(pid: u32) -> io::Result<()> {
    stop(pid)?;
    children(pid)?.into_iter().try_for_each(stop)
}

/// Lets a stopped process and its children run again.
pub(crate) fn resume(pid: u32) -> io::Result<()> {
    send_to_children(pid, Signal::SIGCONT)?;
    send(pid, Signal::SIGCONT)
}

/// Kills a process and its children at the same moment, as a power cut would.
pub(crate) fn kill(pid: u32) -> io::Result<()> {
    stop(pid)?;
    send_to_children(pid, Signal::SIGKILL)?;
    send(pid, Signal::SIGKILL)
}

/// Sends a signal. It is no error if the process has just ended.
pub(crate) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    match signal::kill(Pid::from_raw(pid), signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

fn stop(pid: u32) -> io::Result<()> {
    send(pid, Signal::SIGSTOP)?;
    poll(STOP_LIMIT, "a stopped process", || {
        let stands = match Stat::of(pid) {
            Some(stat) => matches!(stat.state, 'T' | 't' | 'Z' | 'X'),
            None => true,
        };
        Ok(stands.then_some(()))
    })
}

/// Sends a signal to the children of a process one by one. Signalling the process group would miss PostgreSQL's
/// children, which each make a group of their own.
fn send_to_children(parent: u32, signal: Signal) -> io::Result<()> {
    let mut children = children(parent)?.into_iter();
    children.try_for_each(|child| send(child, signal))
}

/// Returns the children of this process that still live.
///
/// # Errors
/// Returns an error if there is no /proc.
pub fn children(parent: u32) -> io::Result<Vec<u32>> {
    let processes =
        fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(processes.filter(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == parent)).collect())
}

struct Stat {
    state: char,
    parent: u32,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain any character, also a parenthesis.
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        Some(Self { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
    }
}
