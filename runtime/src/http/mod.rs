//! HTTP besides the WebSocket: the operators' address, the probes' address, and requests to the clients' address.
//!
//! The way of an operator's request: [`server`] accepts the connection, `router` asks [`access`] and finds the
//! request's line of the table in `api`, and the file of the resource answers.
pub mod access;
mod acts;
pub mod admin;
mod api;
mod audit;
pub mod board;
mod call;
mod console;
mod cors;
pub mod health;
pub mod pages;
mod probes;
pub mod public;
mod reply;
mod route;
mod router;
mod server;
mod times;
mod tries;
mod url_parameters;

#[cfg(test)]
mod tests;

pub use acts::Acts;
pub use reply::{BodyError, Reply, Streamed};
pub use server::{Surface, serve};
pub use tries::FailedTries;
