//! The socket layer tested with raw sockets: what a hostile client may do, and the exact bytes that it gets.
mod carried;
mod client;
mod closing;
mod engine;
mod engine_requests;
mod engine_upgrades;
mod harness;
mod heartbeat;
mod model;
mod pressure;
mod upgrade;
mod violations;
