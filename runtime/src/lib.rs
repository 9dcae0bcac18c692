#![doc = include_str!("../ARCHITECTURE.md")]
pub mod auth;
pub mod cli;
pub mod config;
pub mod demo;
pub mod functions;
mod gateway;
mod handler;
pub mod http;
pub mod http_client;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod mixpanel;
mod node;
mod process_metrics;
mod rooms;
pub mod statistics;
mod trace;
pub mod trace_export;
mod url_query;
pub mod webhook;

pub use cli::run;
pub use handler::{
    connect_context::ConnectContext,
    connected::{Connected, Resumption},
    error::{ConnectError, HandlerError},
    outside::Visitor,
    publisher::{Event, EventError, Publisher, Recipients},
    resources::Resources,
    session::Session,
    table::Table,
    traits::{Connect, Disconnect, Handler},
};
pub use rollcall_bus::{EventPublisher, Position, PublishError, PublishLimits};
pub use rollcall_presence::{Enter, EnterError, EnterGuard, JoinError, Joined, Joining, Membership, Presence};
pub use rooms::Rooms;
