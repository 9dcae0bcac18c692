//! The tools that test and measure Rollcall: private servers and a client for tests, and the load generator
//! `rollcall-loadtest`.
//!
//! No code here is shared with the gateway under test. It is written from the contract alone, so that the tests do not
//! repeat a mistake of the gateway.
//!
//! # In tests
//!
//! Add `rollcall-loadtest` to the dev-dependencies, then take what the test needs:
//!
//! ```no_run
//! use rollcall_loadtest::servers::{self, Nats, Postgres, Redis};
//!
//! # fn main() -> std::io::Result<()> {
//! // One server for all tests of the process, a fresh database for this one.
//! let database_url = servers::shared::postgres().create_database()?;
//! // A server of this test's own, because it will be stopped, killed or restarted.
//! let mut nats = Nats::start()?;
//! nats.pause()?;
//! nats.resume()?;
//! nats.kill()?;
//! nats.restart()?;
//! println!("{database_url} {}", nats.url());
//! # Ok(())
//! # }
//! ```
//!
//! A whole gateway, and clients of it:
//!
//! ```no_run
//! use std::time::Duration;
//! use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! // In an integration test of the `handlers` crate: env!("CARGO_BIN_EXE_rollcall").
//! let gateway = Gateway::start(GatewayOptions::new("target/debug/rollcall"))?;
//! let mut alice = Client::connect(gateway.address()).await?;
//! let token = token::participant("alice");
//! let session = alice.connect_request(&token, "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001", "web").await?;
//! println!("session {}", session["session_id"]);
//! let ack = alice.join_lesson("algebra-1").await?;
//! assert_eq!(ack["status"], "SUCCESS");
//! let event = alice.next_event(Duration::from_secs(5)).await?;
//! println!("{}", event.body);
//! # Ok(())
//! # }
//! ```
//!
//! Servers stop when they are dropped, and also when the process that owns them is killed. They need the Debian
//! packages `postgresql`, `redis-server`, `nats-server` and `prometheus`, and tests of wrong clocks `faketime`; an
//! error names a missing package.

pub mod admin;
pub mod client;
mod connect_proxy;
mod files;
pub mod gateway;
pub mod race;
pub mod servers;
mod tls_front;
pub mod token;
pub mod view;
mod wait;
pub mod webhook;
pub mod wire;

pub use client::Client;
pub use connect_proxy::ConnectProxy;
pub use files::raise_open_files;
pub use gateway::{Gateway, GatewayOptions};
pub use tls_front::TlsFront;
pub use wait::{retry, until_empty};
pub use wire::{Way, Wire};
