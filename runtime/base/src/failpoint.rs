//! Steps of the code at which the chaos suite kills, stops or panics a node, exactly there. Only in debug builds, and only
//! where `CHAOS_FAILPOINT` names a file; a release build has nothing of it.

/// A step is reached.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_step: &'static str) {}

#[cfg(debug_assertions)]
pub use armed::{breakable, reach};

#[cfg(debug_assertions)]
mod armed {
    use std::{env, fs, path::PathBuf, sync::LazyLock, time::Duration};

    use nix::sys::signal::{Signal, raise};

    /// Between two looks for a panic that is armed for a task.
    const LOOK: Duration = Duration::from_millis(50);

    /// Holds a step's name, and a signal's or `PANIC`, while one is armed.
    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| env::var_os("CHAOS_FAILPOINT").map(PathBuf::from));

    /// A step is reached: if it is armed, this process gets the signal, or this thread panics, once.
    pub fn reach(step: &'static str) {
        let Some(file) = &*FILE else { return };
        let Ok(order) = fs::read_to_string(file) else { return };
        let Some((armed, what)) = order.trim().rsplit_once(' ') else { return };
        let signal = what.parse::<Signal>().ok();
        if armed != step || (signal.is_none() && what != "PANIC") {
            return;
        }
        // Of several threads, one; whoever armed it sees that it struck.
        if fs::rename(file, file.with_extension("struck")).is_ok() {
            match signal {
                Some(signal) => drop(raise(signal)),
                None => panic!("armed at {step:?}"),
            }
        }
    }

    /// The task, whose name is a step that it reaches all the time.
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
