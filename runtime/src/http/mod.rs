//! HTTP beside the WebSocket: the operators' address, and what the clients' address answers.
pub mod access;
pub mod admin;
pub mod health;
pub mod public;
mod publish;
mod reply;
mod server;

#[cfg(test)]
mod tests;

pub use reply::Reply;
pub use server::serve;
