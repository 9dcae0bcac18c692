//! The gateway is an [`Application`](rollcall_websocket::Application) on the socket layer, with one value for each
//! worker. It reads requests, runs handlers, and writes acks and pushes.
//!
//! Invariant: one handler of a connection runs at a time, in the order of its messages. A session is in exactly one
//! place: with its peer, with a running handler, or in the disconnect queue.
mod application;
mod batch;
mod closing;
mod commands;
mod dialect;
pub mod disconnect_queue;
mod drain;
mod enumerate;
mod expiry;
mod fanout;
mod join_buffer;
mod kick_from_lesson;
mod leave;
mod lost_events;
mod mailboxes;
mod on_connect_request;
mod options;
mod peer;
mod pids;
mod reorder_buffer;
mod replay;
mod replay_steps;
mod requests;
mod resume_cursor;
mod room_order;
mod socketio;
mod worker;

pub use self::{
    commands::{Enumerate, FindMissing, Page, WorkerCommand},
    mailboxes::Mailboxes,
    options::GatewayOptions,
    pids::Pids,
    worker::{Gateway, GatewayContext, RECONNECT_WITHIN},
};
