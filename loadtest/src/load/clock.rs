//! One clock for all processes of a run: nanoseconds since the machine started.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    u64::try_from(Duration::from(time).as_nanos()).expect("an uptime below 584 years")
}
