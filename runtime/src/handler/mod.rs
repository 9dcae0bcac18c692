//! The handlers of events: the table that names them, the session that they get, and the errors that they may return.
pub mod connect_context;
pub mod connected;
pub mod error;
pub mod handlers;
pub mod invocation;
pub mod outside;
pub mod publisher;
pub mod resources;
pub mod session;
pub mod sids;
pub mod table;
pub mod traits;
