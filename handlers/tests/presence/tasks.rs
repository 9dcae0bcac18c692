//! A node of which one task ends does not go on without it: it drains, names the task, and exits with a failure.

use crate::common::failpoint::{self, breakable};
use crate::common::{Backend, SOON, session_error};

/// Makes a task of a running gateway panic, and returns the gateway's output.
fn ends_with(backend: &mut Backend, task: &str) -> String {
    failpoint::arm(&backend.gateway, task, "PANIC");
    let status = backend.gateway.wait(SOON).unwrap_or_else(|error| panic!("{task}: {error}"));
    assert_eq!(status.code(), Some(1), "{task}");
    let said = backend.gateway.output();
    let named = format!("the task \"{task}\" panicked: armed at \"{task}\"");
    assert!(said.contains(&named), "{task}: {said}");
    said
}

/// Checks each of these tasks in a gateway of its own.
fn each_ends_the_process(kind: &Backend, tasks: &[&str]) {
    let mut backend = kind.another(breakable);
    for task in tasks {
        ends_with(&mut backend, task);
        backend.gateway.restart().unwrap();
    }
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process_and_its_clients_are_told() {
    let mut backend = Backend::embedded().another(breakable);
    for task in ["relay", "lease"] {
        let mut alice = backend.participant(backend.classroom(), "alice").await;
        ends_with(&mut backend, task);
        session_error(&alice.client.expect_close(SOON).await.unwrap(), "terminated", 422, 3001);
        backend.gateway.restart().unwrap();
    }
}

#[tokio::test]
async fn each_task_of_the_node_ends_the_process() {
    let tasks = [
        "worker",
        "dispatch",
        "disconnects",
        "key reconciler",
        "removals of keys",
        "refused ends",
        "session check",
        "upkeep of metrics",
        "keys of issuers",
        "listener",
        "operators' listener",
    ];
    each_ends_the_process(Backend::embedded(), &tasks);
}

#[tokio::test]
async fn each_group_of_commits_and_each_thread_of_the_database_ends_the_process() {
    let tasks = [
        "commits of open",
        "commits of join",
        "commits of restore_lesson",
        "commits of close",
        "commits of verify",
        "sqlite-reader",
        "sqlite-writer",
        "delivery in process",
    ];
    each_ends_the_process(Backend::embedded(), &tasks);
}

#[tokio::test]
async fn each_task_of_the_connection_to_nats_ends_the_process() {
    let tasks = ["the live connection to NATS", "delivery from NATS", "replays from NATS"];
    each_ends_the_process(Backend::real(), &tasks);
}
