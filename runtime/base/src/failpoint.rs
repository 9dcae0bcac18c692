//! Failpoints: steps of the code at which the chaos suite kills or stops a node, or makes it panic. They exist only in
//! debug builds, and act only if `CHAOS_FAILPOINT` names a file.

/// Marks a step of the code. In this build it does nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_step: &'static str) {}

#[cfg(debug_assertions)]
pub use armed::{breakable, reach};

#[cfg(debug_assertions)]
mod armed {
    use std::{env, fs, path::PathBuf, sync::LazyLock, time::Duration};

    use nix::sys::signal::{Signal, raise};

    /// How often a task checks whether a panic is armed for it.
    const LOOK: Duration = Duration::from_millis(50);

    /// While a step is armed, this file contains its name, and a signal's name or `PANIC`.
    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| env::var_os("CHAOS_FAILPOINT").map(PathBuf::from));

    /// Marks a step of the code. If it is armed, this process gets the signal, or this thread panics, once.
    pub fn reach(step: &'static str) {
        let Some(file) = &*FILE else { return };
        let Ok(order) = fs::read_to_string(file) else { return };
        let Some((armed, what)) = order.trim().rsplit_once(' ') else { return };
        let signal = what.parse::<Signal>().ok();
        if armed != step || (signal.is_none() && what != "PANIC") {
            return;
        }
        // Of several threads, the one that renames the file acts. The new name tells the test that it did.
        if fs::rename(file, file.with_extension("struck")).is_ok() {
            match signal {
                Some(signal) => drop(raise(signal)),
                None => panic!("armed at {step:?}"),
            }
        }
    }

    /// Runs a task that a test can make panic at any time. The task's name is a failpoint that is checked at intervals.
    pub async fn breakable(name: &'static str, task: impl Future<Output = ()>) {
        if FILE.is_none() {
            return task.await;
        }
        let looks = async {
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                ticks.tick().await;
                reach(name);
            }
        };
        tokio::select! {
            () = task => {}
            () = looks => {}
        }
    }
}
