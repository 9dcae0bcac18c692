//! A node, from its start to the end of its drain.
mod backends;
pub mod demo;
mod drain;
mod front;
mod limits;
mod serve;
mod session_check;

pub use backends::{Backends, StartError, bus, kv, sql, store};
pub use serve::serve;
