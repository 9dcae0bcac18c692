//! What a handler is: the table that names it, the session that it is given, and the errors that it may return.
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
