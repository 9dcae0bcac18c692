//! Memory and processor time of processes, as the kernel reports them.

use std::fs;
use std::io;

use rollcall_loadtest::servers::children;

/// The number of bytes in a mebibyte.
pub(crate) const MIB: f64 = 1_048_576.0;

/// Linux counts processor time in hundredths of a second for every user of /proc.
const TICKS_PER_SECOND: f64 = 100.0;

/// Returns the proportional set size of a process in bytes: the memory that its end would free.
pub(crate) fn pss(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kilobytes = rollup.lines().find_map(|line| {
        let value = line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?;
        value.trim().parse::<u64>().ok()
    });
    let kilobytes = kilobytes.ok_or_else(|| io::Error::other("smaps_rollup without Pss"))?;
    Ok(kilobytes * 1024)
}

/// Returns the proportional set size of a process and its children.
pub(crate) fn family_pss(pid: u32) -> io::Result<u64> {
    // A child that ended meanwhile uses nothing.
    let children = children(pid)?.into_iter();
    let children: u64 = children.map(|child| pss(child).unwrap_or(0)).sum();
    Ok(pss(pid)? + children)
}

/// Returns the processor time that a process has used, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> io::Result<f64> {
    Ok(processor_times(pid)?.0)
}

/// Returns the processor time that all processes on this machine have used, in seconds.
pub(crate) fn busy_seconds() -> io::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let times = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let times =
        times.ok_or(io::ErrorKind::InvalidData)?.split_whitespace().map_while(|ticks| ticks.parse::<f64>().ok());
    // The fourth and fifth times are of cores that are idle or wait for the disk.
    let busy: f64 = times.enumerate().filter(|(place, _)| !(3..=4).contains(place)).map(|(_, ticks)| ticks).sum();
    Ok(busy / TICKS_PER_SECOND)
}

/// Returns the processor time of a process and its children in seconds, including children that have ended.
pub(crate) fn family_cpu_seconds(pid: u32) -> io::Result<f64> {
    // If a child ends meanwhile, its time is part of its parent's at the next call.
    let children: f64 = children(pid)?.into_iter().map(|child| cpu_seconds(child).unwrap_or(0.0)).sum();
    let (own, ended) = processor_times(pid)?;
    Ok(own + ended + children)
}

/// Returns the processor time of the process itself, and that of its children that have ended, in seconds.
fn processor_times(pid: u32) -> io::Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain any character, also a parenthesis.
    let (_, behind_name) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let fields: Vec<&str> = behind_name.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let seconds = |user, system| Some((ticks(user)? + ticks(system)?) / TICKS_PER_SECOND);
    seconds(11, 12).zip(seconds(13, 14)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Returns a value of /proc/meminfo in bytes, by its name.
pub(crate) fn machine_memory(name: &str) -> io::Result<u64> {
    let table = fs::read_to_string("/proc/meminfo")?;
    let kilobytes = table.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    Ok(kilobytes.ok_or(io::ErrorKind::NotFound)? * 1024)
}
