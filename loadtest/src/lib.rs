//! What judges Rollcall: private servers and a client for tests, and the load generator behind
//! `rollcall-loadtest`.
//!
//! Nothing here shares code with the gateway under test; it is written from the contract alone, so
//! a mistake in the gateway cannot hide behind the same mistake in its judge.
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
//! Servers stop when they are dropped, and also when the process that owns them is killed. They
//! need the Debian packages `postgresql`, `redis-server`, `nats-server` and `prometheus`; an error
//! names the package that is missing.

pub mod servers;
mod wait;
