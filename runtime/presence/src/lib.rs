//! Who is there: handlers call [`Presence`]; one lease a node, and what follows from the rows that it guards.
//!
//! Invariant: presence is what SQL says. Everything else (the events in the stream, the keys in Redis) follows from it,
//! late or twice perhaps, but never wrongly.
mod connections;
mod enter;
mod join;
pub mod key_cleanup;
pub mod key_reconciler;
pub mod lease_keeper;
mod leave;
mod membership;
pub mod operator;
pub mod outbox_relay;
mod refused_ends;
mod service;
pub mod sessions;

pub use connections::Connections;
pub use enter::Enter;
pub use join::{JoinError, Joined, Joining};
pub use membership::Membership;
pub use service::Presence;
pub use sessions::{EnterError, EnterGuard};
