//! HTTP beside the WebSocket: what operators and other services ask, and what we ask of others.
pub mod client;
#[cfg(test)]
pub(crate) mod fixture;
