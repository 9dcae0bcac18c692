//! Connections of Socket.IO (PROTOCOL 11): their packets, how they are let in, how they enter the classroom of a lesson,
//! and how they end.
//!
//! Invariant: a transport carries one namespace at a time. When that ends and the transport stays, the connection goes on
//! under a new id, so a session of the old one can never be taken for the new one's.
mod connect;
mod ending;
mod enter;
mod handshake;
mod packets;
