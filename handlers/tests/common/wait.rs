//! Tests wait for the condition itself, never for a fixed time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// A deadline that is longer than anything takes that succeeds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(10);

/// Polls until the value is as wanted, and returns it. On failure the panic shows the last value.
pub(crate) async fn until<T: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let seen = look().await;
        if wanted(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}; last seen: {seen:#?}");
        tokio::time::sleep(PAUSE).await;
    }
}
