//! Who is there: one lease a node, and what follows from the rows that it guards.
//!
//! Invariant: presence is what SQL says. Everything else (the events in the stream, the keys in Redis) follows from it,
//! late or twice perhaps, but never wrongly.
mod connections;
pub mod key_cleanup;
pub mod key_reconciler;
pub mod lease_keeper;
pub mod outbox_relay;
mod refused_ends;
pub mod sessions;

pub use connections::Connections;
