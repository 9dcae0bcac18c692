//! A node, from its start to the end of its drain.
mod backends;
mod bind;
mod drain;
mod egress;
mod ending;
mod front;
mod gauges;
mod keyring;
mod reload;
mod serve;
mod session_check;
mod signals;
mod start_error;
mod welcome;

pub use backends::{Backends, bus, kv, sql, store};
pub use egress::egress;
pub use serve::serve;
pub use start_error::StartError;
