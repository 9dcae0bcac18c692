//! HTTP beside the WebSocket: what operators and other services ask, and what we ask of others.
pub mod access;
pub mod admin;
pub mod admission;
pub mod client;
mod forwarded;
pub mod health;
pub mod memory;
pub mod network;
pub mod public;
mod publish;
mod reply;
mod server;
pub mod silent;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use reply::Reply;
pub use server::serve;
