//! The limits of listeners and connections (PROTOCOL 2, Limits), and their defaults.
use std::{sync::Arc, time::Duration};

use hyper::HeaderMap;
use tokio::sync::watch;

use crate::{
    certificate::Certificate,
    origins::{Origins, is_loopback_page},
};

/// The limits of one connection, and when it is closed or dropped.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// The maximum number of bytes of one message with all its fragments. A longer message closes the connection with
    /// 1009.
    pub max_message: usize,
    /// The maximum number of fragments of one message. A message with more fragments closes the connection with 1008.
    pub max_fragments: u32,
    /// Whether binary messages are accepted. If not, a binary message closes the connection with 1003.
    pub binary: bool,
    /// The maximum number of bytes that are queued for one client, in addition to the kernel's buffer. Above it, the
    /// client is a [`crate::Cause::SlowConsumer`].
    pub max_outbound: usize,
    /// The maximum number of bytes that are queued for all clients together, in equal shares for the workers. Above it,
    /// the slowest clients are closed.
    pub send_budget: usize,
    /// The kernel's send buffer (`SO_SNDBUF`) in bytes. With `None` the kernel tunes it, and lets it grow to megabytes.
    pub send_buffer: Option<usize>,
    /// The time between two pings of a connection.
    pub ping_interval: Duration,
    /// A client that sends nothing for this long after a ping is closed, and so is a client that pings and does not
    /// read the pongs.
    pub pong_timeout: Duration,
    /// The pong timeout for Engine.IO sessions, whose pongs need the page's JavaScript.
    pub engine_pong_timeout: Duration,
    /// How long a WebSocket may take to become the transport of a long-polling session.
    pub engine_upgrade_timeout: Duration,
    /// How long the client's FIN is awaited after the server's FIN.
    pub close_timeout: Duration,
    /// How long a closing connection may take to read what is queued, including the close frame.
    pub flush_timeout: Duration,
    /// How many bytes of input are discarded while a connection closes. Unread input would cause a reset, which could
    /// overtake the close frame.
    pub max_drain: usize,
    /// How often a worker checks its connections. All times above are rounded up to it.
    pub tick: Duration,
    /// How many commands and new connections may wait for a worker. If the inbox is full, senders wait.
    pub inbox: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            max_message: 64 << 10,
            max_fragments: 1024,
            binary: false,
            max_outbound: 256 << 10,
            send_budget: 1 << 30,
            send_buffer: Some(64 << 10),
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(5),
            engine_pong_timeout: Duration::from_secs(20),
            engine_upgrade_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            flush_timeout: Duration::from_secs(3),
            max_drain: 4 << 20,
            tick: Duration::from_secs(1),
            inbox: 4096,
        }
    }
}

impl SocketOptions {
    /// Sets the limits that may change while connections are open: the limits of what clients send and of what waits
    /// for them. The new limits apply from the next message on.
    pub(crate) fn set_limits(&mut self, new: &Self) {
        self.max_message = new.max_message;
        self.max_fragments = new.max_fragments;
        self.max_outbound = new.max_outbound;
        self.send_buffer = new.send_buffer;
    }

    /// Returns a time in ticks, rounded up to at least one.
    pub(crate) fn ticks(&self, time: Duration) -> u32 {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos().max(1)).max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX / 2)
    }
}

/// A listener's options, which may change while it runs. Each connection keeps the options with which it began.
pub type CurrentOptions = watch::Receiver<Arc<ListenerOptions>>;

/// What a listener serves, and what a connection may cost before it is upgraded.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// The path of WebSockets.
    pub path: String,
    /// The path of Engine.IO without its last slash. It is served with and without the slash. `None` means that
    /// Engine.IO is not served.
    pub engine_path: Option<String>,
    /// The TLS certificate. Without one, clients speak plain HTTP.
    pub certificate: Option<Certificate>,
    /// The origins whose pages may connect.
    pub origins: Origins,
    /// Whether pages of loopback addresses, on any port, may connect, too.
    pub loopback_pages: bool,
    /// Whether connections come from balancers and begin with a header of the PROXY protocol (see
    /// [`crate::HttpHooks::is_proxy`]).
    pub proxy_protocol: bool,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// How long a connection that does not upgrade may last.
    pub http_timeout: Duration,
    /// The maximum number of bytes of a head. A longer head gets 431.
    pub max_head: usize,
    /// The maximum number of headers of a head. More get 431.
    pub max_headers: usize,
    /// The maximum number of connections that have not upgraded. If there are that many, a new one evicts the oldest
    /// that is older than a second. While fewer than half of these are free, a connection ends with its response. This
    /// does not change while the listener runs.
    pub max_half_open: usize,
}

impl ListenerOptions {
    /// Returns whether the page that sent a request may read the answer: its origin may open a WebSocket, or the
    /// request comes from no page.
    #[must_use]
    pub fn allows_origin(&self, headers: &HeaderMap) -> bool {
        self.origins.allow(headers) || self.loopback_pages && is_loopback_page(headers)
    }
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            path: "/ws".into(),
            engine_path: None,
            certificate: None,
            origins: Origins::default(),
            loopback_pages: false,
            proxy_protocol: false,
            head_timeout: Duration::from_secs(5),
            http_timeout: Duration::from_secs(10),
            max_head: 16 << 10,
            max_headers: 100,
            max_half_open: 8192,
        }
    }
}
