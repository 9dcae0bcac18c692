//! Waits for the condition itself, never for a fixed time.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Calls `probe` until it returns a value. `Ok(None)` means that the value is not there yet; an error ends the wait.
pub(crate) fn poll<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: nothing within {limit:?}")));
        }
        thread::sleep(PAUSE);
    }
}

/// Repeats a call that fails, with pauses, until it succeeds.
///
/// # Errors
/// Returns the call's error if `limit` has passed.
pub fn retry<T>(limit: Duration, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match call() {
            Err(_) if Instant::now() < deadline => thread::sleep(RETRY_PAUSE),
            result => return result,
        }
    }
}

/// Looks again until nothing is found, or returns what is found when `limit` has passed.
///
/// # Errors
/// Returns the error of a look.
pub fn until_empty<T>(limit: Duration, mut look: impl FnMut() -> io::Result<Vec<T>>) -> io::Result<Vec<T>> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look()?;
        if found.is_empty() || Instant::now() >= deadline {
            return Ok(found);
        }
        thread::sleep(RETRY_PAUSE);
    }
}
