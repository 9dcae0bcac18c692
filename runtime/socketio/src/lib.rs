//! The packets of Engine.IO 4 and Socket.IO 5, without I/O.
//!
//! `engine` is the lower layer, Engine.IO: its packets, the payloads of long-polling, and its HTTP errors. `packet`
//! reads one Socket.IO packet, `event` the arguments of an event, and `attachments` the binary messages that follow a
//! packet.
//!
//! Invariant: parsing builds no tree and takes linear time. A packet for which the reference servers close a connection
//! is [`Malformed`] here, before any part of it is used.
pub mod attachments;
pub mod engine;
pub mod event;
pub mod packet;

pub use attachments::Attachments;
pub use event::Event;
pub use packet::{Kind, Packet};

/// The client broke the protocol, so its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub struct Malformed;
