//! The socket layer: WebSockets that cost one slab entry each while they are idle.
//!
//! `listener` accepts, `serve_http1` and `upgrade_service` answer requests, and the upgraded stream goes to a `worker`:
//! one task with its own connections, epoll and read buffer, which calls an [`Application`]. `frame` and
//! `message_decoder` implement the protocol without I/O; `connection`, `socket_io` and `send_queue` implement one
//! connection, `read_ready` its input, and `heartbeat` its pings and deadlines.
//!
//! Clients may speak Engine.IO instead of plain WebSockets: `engine_service` answers its requests, `framing` writes its
//! packets, and `polling` and `upgrade_probe` implement sessions whose packets are sent by HTTP. An [`Application`]
//! only gets messages. A session's transport may carry further connections (`carried`).
//!
//! Invariant: a client costs at most its slab entry, the bytes it has sent of one message (twice, while they are
//! copied), and `max_outbound`. Whatever a client does, the application gets one `opened` and one `closed` for it.
mod application;
mod carried;
pub mod certificate;
mod close;
mod connection;
mod connection_count;
mod engine;
mod engine_request;
mod engine_service;
pub mod evicting_semaphore;
mod frame;
mod framing;
mod handoff;
mod handshake;
mod heartbeat;
mod http_hooks;
mod id;
mod listener;
mod listener_context;
mod load;
mod maybe_tls_stream;
mod message_decoder;
mod on_engine_request;
mod options;
mod origins;
mod polling;
mod polling_session;
mod proxy_protocol;
mod read_ready;
mod send_budget;
mod send_queue;
mod serve_http1;
mod slow_readers;
mod socket_io;
mod sockets;
mod tls;
mod transport;
mod upgrade_probe;
mod upgrade_service;
mod worker;
mod workers;

pub use application::{Application, Ping, Upgrade};
pub use certificate::Certificate;
pub use close::{Cause, Close, CloseNotice, Violation};
pub use connection_count::{ConnectionCount, Reservation, ReservedConnection};
pub use framing::Framing;
pub use handoff::Handoff;
pub use handshake::UpgradeError;
pub use http_hooks::HttpHooks;
pub use id::SocketId;
pub use listener::{bind, serve};
pub use message_decoder::{Decoded, Message, MessageDecoder};
pub use options::{CurrentOptions, ListenerOptions, SocketOptions};
pub use origins::Origins;
pub use socket_io::SocketIo;
pub use sockets::{Socket, Sockets};
pub use workers::{Inbox, Stopped, Workers};
