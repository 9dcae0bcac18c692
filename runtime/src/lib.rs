//! The machine under the handlers: accept, socket, connection state machine, dispatch, rooms, sessions, backends,
//! configuration, metrics, shutdown. It knows nothing of any particular event.
pub mod auth;
pub mod bus;
pub mod config;
pub mod group;
pub mod http;
pub mod kv;
pub mod load;
pub mod metrics;
pub mod mixpanel;
pub mod names;
pub mod store;
