//! Tests of one process run at the same time. Those that load the whole machine do so alone, so that those that measure how
//! long something takes are not slowed down.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Held by a test that measures time: no test that loads the machine runs meanwhile.
pub(crate) async fn measures_time() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Held by a test that loads the machine: no test that measures time runs meanwhile.
pub(crate) async fn loads_the_machine() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}
