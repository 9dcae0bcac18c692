//! The machine under the handlers: accept, socket, connection state machine, dispatch, rooms, sessions, backends,
//! configuration, metrics, shutdown. It knows nothing of any particular event.
pub mod auth;
pub mod bus;
pub mod check;
pub mod config;
mod delivery;
pub mod demo;
mod departures;
mod dispatch;
mod error;
mod events;
mod gateway;
pub mod group;
pub mod http;
pub mod kv;
mod lease;
pub mod load;
pub mod metrics;
pub mod mixpanel;
pub mod names;
mod pools;
mod projection;
mod relay;
mod rooms;
mod service;
mod session;
mod sessions;
pub mod socket;
pub mod store;

pub use dispatch::{Handler, Table};
pub use error::{ConnectError, HandlerError};
pub use gateway::{Greeting, Resumption, Welcome};
pub use pools::Pools;
pub use rooms::Rooms;
pub use service::run;
pub use session::{Place, Presence, Session};
pub use sessions::Sessions;
