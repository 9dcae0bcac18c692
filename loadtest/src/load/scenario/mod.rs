//! The scenarios, one file for each. A scenario starts the servers that it measures, and leaves none running.

pub(crate) mod attendance;
mod callers;
pub(crate) mod consoles;
pub(crate) mod fanout;
pub(crate) mod floor;
pub(crate) mod functions;
pub(crate) mod hostile;
pub(crate) mod idle;
pub(crate) mod join;
pub(crate) mod publisher;
pub(crate) mod race;
pub(crate) mod reconnect;
pub(crate) mod rosters;
pub(crate) mod scale;
pub(crate) mod soak;
pub(crate) mod socketio;
mod socketio_peers;
pub(crate) mod webhook;
mod webhook_ledger;
