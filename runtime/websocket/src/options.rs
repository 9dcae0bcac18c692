//! Parameters of the layer (PROTOCOL 2, Limits). Every bound of a connection is named here, once.
use std::time::Duration;

/// What one connection may cost, and when it is given up.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Bytes of one message, all its fragments together; above: 1009.
    pub max_message: usize,
    /// Fragments of one message; above: 1008.
    pub max_fragments: u32,
    /// Whether binary messages are taken; if not: 1003.
    pub binary: bool,
    /// Bytes queued for a client beside the kernel's buffer; above: [`super::Cause::SlowConsumer`].
    pub max_outbound: usize,
    /// The same of all connections together, in equal shares for the workers; above, those who are slowest are ended.
    pub max_in_flight: usize,
    /// The kernel's send buffer (`SO_SNDBUF`), which autotuning would let grow to megabytes. `None` leaves it alone.
    pub send_buffer: Option<usize>,
    /// Between two pings of a connection.
    pub ping_interval: Duration,
    /// Silence after a ping that ends the connection; also a client that asks for pongs and takes nothing.
    pub pong_timeout: Duration,
    /// From our FIN to giving up on the client's.
    pub close_timeout: Duration,
    /// For what is still queued when a connection is closed, the close frame included.
    pub flush_timeout: Duration,
    /// Unread input of a closing connection that is thrown away, so that no reset overtakes the close frame.
    pub max_drain: usize,
    /// Step of all the times above: how often a worker looks at its connections.
    pub tick: Duration,
    /// Commands and new connections waiting for a worker; senders wait for room.
    pub inbox: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            max_message: 64 << 10,
            max_fragments: 1024,
            binary: false,
            max_outbound: 256 << 10,
            max_in_flight: 1 << 30,
            send_buffer: Some(64 << 10),
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
            flush_timeout: Duration::from_secs(3),
            max_drain: 4 << 20,
            tick: Duration::from_secs(1),
            inbox: 4096,
        }
    }
}

impl SocketOptions {
    /// A time in ticks, rounded up, at least one.
    pub(super) fn ticks(&self, time: Duration) -> u32 {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos().max(1)).max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX / 2)
    }
}
