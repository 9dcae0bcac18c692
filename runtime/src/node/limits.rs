//! The configured limits, given to the parts that keep them.
use crate::{
    config::{Config, Gate, Limits},
    gateway::{GatewayOptions, disconnect_queue::Grace},
};
use rollcall_websocket::{ListenerOptions, SocketOptions};

pub(super) fn sockets(limits: &Limits, gate: &Gate) -> SocketOptions {
    SocketOptions {
        max_in_flight: gate.in_flight,
        max_message: limits.message,
        max_fragments: u32::try_from(limits.fragments).unwrap_or(u32::MAX),
        max_outbound: limits.queue,
        send_buffer: Some(limits.send_buffer),
        ping_interval: limits.ping_interval,
        pong_timeout: limits.pong_timeout,
        ..SocketOptions::default()
    }
}

pub(super) fn listener(limits: &Limits, gate: &Gate) -> ListenerOptions {
    ListenerOptions {
        origins: gate.origins.clone(),
        proxy_protocol: gate.proxy_protocol,
        half_open: gate.half_open,
        head_timeout: limits.head_timeout,
        max_head: limits.head,
        ..ListenerOptions::default()
    }
}

pub(super) fn grace(config: &Config) -> Grace {
    let max = config.presence.max_in_grace.unwrap_or_else(|| config.gate.limits.connections.div_ceil(4));
    Grace { time: config.presence.leave_grace, max }
}

pub(super) fn gateway(limits: &Limits) -> GatewayOptions {
    GatewayOptions {
        connect_timeout: limits.connect_timeout,
        ping_interval: limits.ping_interval,
        max_pending: limits.pending,
        reset_spread: limits.reset_spread,
    }
}
