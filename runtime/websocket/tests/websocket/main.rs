//! The socket layer by raw sockets: each row of what a hostile client may do, with its exact outcome on the wire.
mod client;
mod closing;
mod harness;
mod heartbeat;
mod model;
mod pressure;
mod upgrade;
mod violations;
