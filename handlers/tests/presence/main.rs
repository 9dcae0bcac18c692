//! The promises of presence whose tests need more than one node, or servers that fail: sessions that move, nodes that
//! die, backends that are away, partitioned, failed over or full, a backlog of events, a drain, wrong clocks, a webhook
//! whose receiver is away, requests that are cut off, views that stay whole, and long-polling behind balancers.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod backlog;
mod balancers;
mod clocks;
mod cut_off;
mod dashboard;
mod database_failover;
mod drain;
mod drain_socketio;
mod exhaustion;
mod kicks;
mod lost_rows;
mod nodes;
mod outages;
mod pairs;
mod partitions;
mod pooler;
mod races;
mod redis_cluster;
mod redis_failover;
mod relays;
mod sql_away;
mod tasks;
mod views;
mod webhook;
