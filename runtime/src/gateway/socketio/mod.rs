//! Connections of Socket.IO (PROTOCOL 11): their packets, how they are let in, how they enter the classroom of a lesson,
//! and how they end.
//!
//! Invariant: each namespace on a transport is a connection of its own, with its own session and sid. The first is the
//! transport's own connection; when that ends and the transport stays, the connection goes on under a new id, so a session of
//! the old one can never be taken for the new one's. Further ones are carried by it, and end with it.
mod connect;
mod ending;
mod enter;
mod handshake;
mod let_in;
mod packets;
