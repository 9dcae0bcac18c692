//! A value that is read from files again while the process runs, as passwords and certificates are.
//!
//! Invariant: a file that cannot be used (because it is missing, or half written) changes nothing: the last good value
//! stays in use, and the problem is logged once. A file system that hangs delays each caller by [`READ`] at most, and
//! occupies one thread in all.
use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};

/// How long a read may take.
const READ: Duration = Duration::from_millis(250);

/// A value of files, and the last good reading of it.
pub struct Reloaded<T> {
    /// The name of the value and of its files, for the log.
    source: String,
    last: Mutex<Last<T>>,
    /// A lock that is held during a read.
    reading: Arc<tokio::sync::Mutex<()>>,
}

struct Last<T> {
    good: T,
    /// What was wrong at the last read, or `None` if that read succeeded.
    problem: Option<String>,
}

impl<T: Clone + Send + 'static> Reloaded<T> {
    /// Starts with `first`, the value that was read already. The log calls the value `source`.
    pub fn new(source: impl Into<String>, first: T) -> Self {
        Self { source: source.into(), last: Mutex::new(Last { good: first, problem: None }), reading: Arc::default() }
    }

    /// Returns the value as it is now. `read` gets the last good value, and returns another one if the files have
    /// changed.
    pub async fn current(&self, read: impl FnOnce(&T) -> Result<Option<T>, String> + Send + 'static) -> T {
        self.ask(read).await.unwrap_or_else(|(good, _)| good)
    }

    /// Returns the current value, as [`Self::current`] does, for a caller that may not be able to use the last good
    /// value.
    ///
    /// # Errors
    /// Returns what is wrong with the files if the last good value does not `fit`.
    pub async fn current_if(
        &self,
        fits: impl FnOnce(&T) -> bool,
        read: impl FnOnce(&T) -> Result<Option<T>, String> + Send + 'static,
    ) -> Result<T, String> {
        self.ask(read).await.or_else(|(good, problem)| if fits(&good) { Ok(good) } else { Err(problem) })
    }

    /// Reads the value. The error is the last good value, with what is wrong now.
    async fn ask(&self, read: impl FnOnce(&T) -> Result<Option<T>, String> + Send + 'static) -> Result<T, (T, String)> {
        let good = self.last.lock().good.clone();
        let reading = Arc::clone(&self.reading);
        let read = async move {
            let alone = reading.lock_owned().await;
            let read = move || {
                let _alone = alone;
                read(&good).map(|other| other.map_or((good, false), |other| (other, true)))
            };
            spawn_blocking(read).await
        };
        self.keep(match timeout(READ, read).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("reading it panicked".to_owned()),
            Err(_) => Err(format!("it was not read within {READ:?}")),
        })
    }

    /// Keeps a new value, and logs what has changed.
    fn keep(&self, answer: Result<(T, bool), String>) -> Result<T, (T, String)> {
        let mut last = self.last.lock();
        let source = &self.source;
        match answer {
            Ok((value, is_other)) => {
                if last.problem.take().is_some() {
                    info!(source, "the value can be read again");
                }
                if is_other {
                    info!(source, "the value was replaced, and new connections use the new value");
                    last.good = value.clone();
                }
                Ok(value)
            }
            Err(problem) => {
                if last.problem.as_ref() != Some(&problem) {
                    warn!(source, problem, "the value cannot be read, so the last good value stays in use");
                    last.problem = Some(problem.clone());
                }
                Err((last.good.clone(), problem))
            }
        }
    }
}
