//! Steps of the code at which the chaos suite kills or stops a node, exactly there. Only in debug builds, and only where
//! `CHAOS_FAILPOINT` names a file; a release build has nothing of it.

/// A step is reached.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_step: &'static str) {}

#[cfg(debug_assertions)]
pub use armed::reach;

#[cfg(debug_assertions)]
mod armed {
    use std::{env, fs, path::PathBuf, sync::LazyLock};

    use nix::sys::signal::{Signal, raise};

    /// Holds a step's name and a signal's, while one is armed.
    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| env::var_os("CHAOS_FAILPOINT").map(PathBuf::from));

    /// A step is reached: if it is armed, this process gets the signal, once.
    pub fn reach(step: &'static str) {
        let Some(file) = &*FILE else { return };
        let Ok(order) = fs::read_to_string(file) else { return };
        let Some((armed, signal)) = order.trim().rsplit_once(' ') else { return };
        let (true, Ok(signal)) = (armed == step, signal.parse::<Signal>()) else { return };
        // Of several threads, one; whoever armed it sees that it struck.
        if fs::rename(file, file.with_extension("struck")).is_ok() {
            let _ = raise(signal);
        }
    }
}
