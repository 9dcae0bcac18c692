//! The socket layer: WebSockets that cost a slab entry each while nothing happens on them.
//!
//! A listener (hyper) checks upgrades and hands the bare stream to a worker: one task that owns its connections, an
//! epoll of its own and one read buffer, and calls an [`Application`]. `frame` and `inbound` are the protocol
//! without I/O; `connection` and `outbound` one connection; `worker` and `turn` the loop; `sweep` the clock.
//!
//! Invariant: a client costs at most its entry, the bytes it has sent of one message (twice, while they move), and
//! `max_outbound`; whatever it does, an application hears of each connection one `opened` and one `closed`.
mod application;
pub mod certificate;
mod connection;
pub mod evicting_semaphore;
mod frame;
mod handshake;
mod id;
mod inbound;
mod listener;
mod maybe_tls_stream;
mod options;
mod origins;
mod outbound;
mod proxy_protocol;
mod read_ready;
mod send_budget;
mod sockets;
mod sweep;
mod tls;
mod transport;
mod upgrade_service;
mod worker;
mod workers;

pub use application::{Application, Cause, Close, CloseNotice, Message, Upgrade};
pub use connection::SocketIo;
pub use frame::{Violation, encode_text};
pub use handshake::UpgradeError;
pub use id::SocketId;
pub use inbound::{Event, Inbound};
pub use listener::{HttpHooks, ListenerOptions, bind, serve};
pub use maybe_tls_stream::{Certificate, Handoff};
pub use options::SocketOptions;
pub use origins::Origins;
pub use sockets::{Socket, Sockets};
pub use workers::{Inbox, Stopped, Workers};
