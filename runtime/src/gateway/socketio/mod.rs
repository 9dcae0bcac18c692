//! Connections of Socket.IO (PROTOCOL 11): their packets, how they are let in, how they enter the classroom of a
//! lesson, and how they end.
//!
//! Invariant: each namespace on a transport is a separate connection with its own session and sid. The first is the
//! transport's own connection. If it ends and the transport stays, the transport's own connection gets a new id, so
//! that the old session is never taken for the new one. The connections of further namespaces are carried by the
//! transport's own connection, and end with it.
mod connect;
mod ending;
mod enter;
mod handshake;
mod let_in;
mod packets;
