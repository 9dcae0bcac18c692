//! Tasks and threads that run as long as the node: when one ends, the process ends.
//!
//! Invariant: a task that panics or returns is reported with its name, so no node goes on without one of its parts. A
//! task for one connection, call or batch is not started here, because its caller sees how it ends.
use std::{
    any::Any,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinHandle};

#[cfg(debug_assertions)]
use crate::failpoint;

/// A task that ended while the node should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEnded {
    /// The task's name.
    pub task: &'static str,
    /// The message of the panic. `None` if the task returned.
    pub panic: Option<String>,
}

impl fmt::Display for TaskEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.panic {
            Some(message) => write!(f, "the task \"{}\" panicked: {message}", self.task),
            None => write!(f, "the task \"{}\" ended by itself", self.task),
        }
    }
}

impl std::error::Error for TaskEnded {}

/// Starts tasks, and reports the first one that ends. Clones report to the same value.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<watch::Sender<Option<TaskEnded>>>);

impl Tasks {
    /// Starts a task. The caller must be inside a runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(self.supervise(name, task))
    }

    /// Wraps a task so that its end is reported, for an owner that ends its tasks itself. A task that is dropped is not
    /// reported.
    pub fn supervise(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let tasks = self.clone();
        #[cfg(debug_assertions)]
        let task = failpoint::breakable(name, task);
        async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await;
            tasks.ended(name, outcome.err());
        }
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// Returns an error if the system has no thread left.
    pub fn thread(&self, name: &'static str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let tasks = self.clone();
        let supervised = move || tasks.ended(name, catch_unwind(AssertUnwindSafe(run)).err());
        thread::Builder::new().name(name.to_owned()).spawn(supervised).map(drop)
    }

    /// Starts a thread that ends with another thread, whose end is reported. Of this thread only a panic is reported.
    ///
    /// # Errors
    /// Returns an error if the system has no thread left.
    pub fn dependent_thread(&self, name: &'static str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let tasks = self.clone();
        let supervised = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                tasks.ended(name, Some(panic));
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(supervised).map(drop)
    }

    /// Waits for the first task that ends.
    pub async fn failed(&self) -> TaskEnded {
        let mut ended = self.0.subscribe();
        let first = ended.wait_for(Option::is_some).await.ok().and_then(|first| first.clone());
        match first {
            Some(first) => first,
            // This is unreachable, because `self` owns the sender.
            None => std::future::pending().await,
        }
    }

    /// Keeps the first end. A panic replaces an end without a panic, because it may have caused that end.
    fn ended(&self, task: &'static str, panic: Option<Box<dyn Any + Send>>) {
        let panic = panic.map(|payload| message(&*payload));
        self.0.send_if_modified(|first| {
            let says_more = match first {
                None => true,
                Some(first) => first.panic.is_none() && panic.is_some(),
            };
            if says_more {
                *first = Some(TaskEnded { task, panic });
            }
            says_more
        });
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_with_its_message() {
        let tasks = Tasks::default();
        tasks.spawn("lives", std::future::pending());
        tasks.spawn("dies", async { panic!("no {}", "luck") });
        let ended = TaskEnded { task: "dies", panic: Some("no luck".to_owned()) };
        assert_eq!(tasks.failed().await, ended);
        assert_eq!(ended.to_string(), "the task \"dies\" panicked: no luck");
    }

    #[tokio::test]
    async fn a_return_is_reported_and_a_panic_takes_its_place() {
        let tasks = Tasks::default();
        tasks.spawn("returns", async {}).await.expect("not aborted");
        assert_eq!(tasks.failed().await.to_string(), "the task \"returns\" ended by itself");
        tasks.thread("thread", || panic!("why")).expect("a thread");
        let mut ended = tasks.0.subscribe();
        let panicked = ended.wait_for(|ended| ended.as_ref().is_some_and(|ended| ended.panic.is_some())).await;
        assert_eq!(panicked.expect("reported").as_ref().map(|ended| ended.task), Some("thread"));
    }

    #[tokio::test]
    async fn a_task_that_its_owner_ends_is_not_reported() {
        let tasks = Tasks::default();
        let task = tasks.spawn("aborted", std::future::pending());
        task.abort();
        assert!(task.await.expect_err("aborted").is_cancelled());
        assert_eq!(*tasks.0.borrow(), None);
    }
}
