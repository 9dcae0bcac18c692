//! Promises of presence that take a node to its limits: a backlog of events, a drain beside servers that hang, clocks that
//! are wrong, resources that run out, and views that must be whole all the same.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod backlog;
mod clocks;
mod drain;
mod exhaustion;
mod failover;
mod pairs;
mod races;
mod tasks;
mod views;
