//! The machine under the handlers: accept, socket, connection state machine, dispatch, rooms, sessions, backends,
//! configuration, metrics, shutdown. It knows nothing of any particular event.
pub mod bus;
pub mod kv;
pub mod names;
pub mod socket;
pub mod store;
