//! Locks for tests that load the whole machine. The tests of a process run at the same time; a test that loads the
//! machine runs while no test measures time, so it slows down no measurement.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Locks the machine for a test that measures time. No test that loads the machine runs meanwhile.
pub(crate) async fn measures_time() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Locks the machine for a test that loads it. No test that measures time runs meanwhile.
pub(crate) async fn loads_the_machine() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}
