//! The load generator: worker processes that act as agents, the floor as the figure to compare with, and the scenarios
//! that measure both.

pub(crate) mod clock;
pub(crate) mod crew;
pub(crate) mod floor;
pub(crate) mod order;
pub(crate) mod peers;
pub(crate) mod plot;
pub(crate) mod proc;
pub(crate) mod publisher;
pub(crate) mod report;
pub(crate) mod results;
pub(crate) mod rounds;
pub(crate) mod scenario;
pub(crate) mod stage;
pub(crate) mod system;
pub(crate) mod worker;

mod arrivals;
mod backends;
mod connection;
mod conversation;
mod engine;
mod frame;
mod lifecycle;
mod packets;
mod pushes;
mod requests;
