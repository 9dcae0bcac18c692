#![doc = include_str!("../ARCHITECTURE.md")]
pub mod auth;
pub mod cli;
pub mod config;
mod gateway;
mod handler;
pub mod http;
pub mod http_client;
pub mod limits;
pub mod metrics;
pub mod mixpanel;
mod node;
mod rooms;

pub use cli::run;
pub use handler::{
    connect_context::ConnectContext,
    connected::{Connected, Resumption},
    error::{ConnectError, HandlerError},
    resources::Resources,
    session::Session,
    table::{Handler, Table},
};
pub use rollcall_bus::Position;
pub use rollcall_presence::{Enter, EnterError, EnterGuard, JoinError, Joined, Joining, Membership, Presence};
pub use rooms::Rooms;
