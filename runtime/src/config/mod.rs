//! Configuration.
mod secret;

pub use secret::{BackendUrl, Secret};
