//! What every crate of the runtime uses. This crate uses no other crate of the workspace.
mod address;
pub mod failpoint;
pub mod file;
pub mod log_limit;
pub mod names;
pub mod process;
mod redacted;
pub mod reloaded;
mod rotating_secret;
mod secret;
pub mod since;
pub mod tasks;
pub mod tls;
pub mod tls_failure;
pub mod trace;

pub use address::BackendUrl;
pub use redacted::redacted;
pub use rotating_secret::{Check, RotatingSecret};
pub use secret::Secret;
