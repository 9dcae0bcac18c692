//! A value that is read from files again while the process runs, as passwords and certificates are.
//!
//! Invariant: what cannot be read (missing, or half written while it is replaced) changes nothing: the last good value
//! stays in use, and the problem is logged once. A file system that hangs delays each caller by [`READ`] at most, and
//! keeps one thread, not one a caller.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};

/// How long a read may take.
const READ: Duration = Duration::from_millis(250);

/// See the module.
pub struct Reloaded<T> {
    /// What is read, and where, for the log.
    source: String,
    last: Mutex<Last<T>>,
    /// Held during a read.
    reading: Arc<tokio::sync::Mutex<()>>,
}

struct Last<T> {
    good: T,
    /// What was wrong at the last read; none: it was good.
    problem: Option<String>,
}

impl<T: Clone + Send + 'static> Reloaded<T> {
    /// `first` is the value that was read already; the log calls it `source`.
    pub fn new(source: impl Into<String>, first: T) -> Self {
        Self { source: source.into(), last: Mutex::new(Last { good: first, problem: None }), reading: Arc::default() }
    }

    /// The value as it is now. `read` is given the last good one, and returns another one if there is one.
    pub async fn current(&self, read: impl FnOnce(&T) -> Result<Option<T>, String> + Send + 'static) -> T {
        self.ask(read).await.unwrap_or_else(|(good, _)| good)
    }

    /// The same where the last good one may not be what is asked for now.
    ///
    /// # Errors
    /// What is wrong with the files, where the last good one does not `fit`.
    pub async fn current_if(
        &self,
        fits: impl FnOnce(&T) -> bool,
        read: impl FnOnce(&T) -> Result<Option<T>, String> + Send + 'static,
    ) -> Result<T, String> {
        self.ask(read).await.or_else(|(good, problem)| if fits(&good) { Ok(good) } else { Err(problem) })
    }

    /// What was read, or the last good value with what is wrong now.
    async fn ask(&self, read: impl FnOnce(&T) -> Result<Option<T>, String> + Send + 'static) -> Result<T, (T, String)> {
        let good = self.last().good.clone();
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

    /// Keeps the value that was read if it is another one, and logs what has changed.
    fn keep(&self, answer: Result<(T, bool), String>) -> Result<T, (T, String)> {
        let mut last = self.last();
        let source = &self.source;
        match answer {
            Ok((value, is_other)) => {
                if last.problem.take().is_some() {
                    info!(source, "it can be read again");
                }
                if is_other {
                    info!(source, "it was replaced; new connections use the new one");
                    last.good = value.clone();
                }
                Ok(value)
            }
            Err(problem) => {
                if last.problem.as_ref() != Some(&problem) {
                    warn!(source, problem, "the last good one stays in use, where it is what is asked for");
                    last.problem = Some(problem.clone());
                }
                Err((last.good.clone(), problem))
            }
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last<T>> {
        // Its fields are consistent after any panic.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
