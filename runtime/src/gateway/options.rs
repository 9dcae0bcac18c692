//! The limits of the gateway (PROTOCOL 2, Limits). Each worker has a copy of its own, so that reading one costs nothing.
use std::time::Duration;

use crate::trace::ClientTraces;

/// Options of the gateway (PROTOCOL 2, Limits).
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The time from the upgrade to connect_request.
    pub connect_timeout: Duration,
    /// The interval that the client is told; the socket layer keeps it.
    pub ping_interval: Duration,
    /// Bytes of a message of Socket.IO with its attachments.
    pub max_message: usize,
    /// Bytes of requests that may wait for a running handler; with more, the socket is not read.
    pub max_pending: usize,
    /// The time over which connections are closed whose rooms' events are gone for good.
    pub reset_spread: Duration,
    /// Which of the traces that clients name are sampled.
    pub traces: ClientTraces,
}

impl GatewayOptions {
    /// Takes over the limits that may change while connections are open.
    pub(super) fn set_limits(&mut self, new: &Self) {
        self.connect_timeout = new.connect_timeout;
        self.max_message = new.max_message;
        self.max_pending = new.max_pending;
    }
}
