//! HTTP beside the WebSocket: what operators and other services ask, and what we ask of others.
pub mod access;
pub mod admin;
pub mod client;
pub mod health;
pub mod public;
mod publish;
mod reply;
mod server;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub(crate) use reply::HttpError;
pub use reply::Reply;
pub use server::serve;
