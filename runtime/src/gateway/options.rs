//! The limits of the gateway (PROTOCOL 2, Limits). Each worker has its own copy, so that reading a limit costs nothing.
use std::time::Duration;

use crate::trace::ClientTraces;

/// The options of the gateway (PROTOCOL 2, Limits).
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The time from the upgrade to connect_request.
    pub connect_timeout: Duration,
    /// The ping interval that the client is told. The socket layer sends the pings.
    pub ping_interval: Duration,
    /// The maximum number of bytes of a message of Socket.IO with its attachments.
    pub max_message: usize,
    /// How many bytes of requests may wait for a running handler. If there are more, the socket is not read.
    pub max_pending: usize,
    /// The time over which connections are closed if events of their rooms are lost.
    pub reset_spread: Duration,
    /// Which of the traces that clients name are sampled.
    pub traces: ClientTraces,
}

impl GatewayOptions {
    /// Copies the limits that may change while connections are open.
    pub(super) fn set_limits(&mut self, new: &Self) {
        self.connect_timeout = new.connect_timeout;
        self.max_message = new.max_message;
        self.max_pending = new.max_pending;
    }
}
