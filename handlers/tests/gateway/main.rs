//! What PROTOCOL promises to the clients and the operator of one gateway: connect, join, events and their order, the
//! end of a connection, HTTP, the command line, start and end of the process. `seed_*` are the seed's diagrams, step by
//! step.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod acks;
mod attendance;
mod cli;
mod connect;
mod console;
mod crowd;
mod egress;
mod ends;
mod files;
mod first_page;
mod forwarding;
mod functions;
mod heartbeat;
mod http;
mod join;
mod leave_lesson;
mod metric_series;
mod nats_tls;
mod openapi;
mod operator;
mod operator_cli;
mod output;
mod postgres_tls;
mod probes;
mod redis_kinds;
mod reload;
mod resume;
mod roster;
mod roster_http;
mod secrets;
mod seed_000_entered;
mod seed_000_left;
mod seed_003_participant;
mod seed_003_socketio;
mod seed_003_teacher;
mod settings;
mod socketio;
mod socketio_classroom;
mod socketio_ends;
mod socketio_namespaces;
mod socketio_recovery;
mod start;
mod state;
mod traces;
