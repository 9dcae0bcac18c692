//! Settings of connections: their limits, and how long a session waits for its client after its connection broke.
use std::time::Duration;

use super::{access::AccessConfig, names, source::Source, value};
use crate::{
    gateway::{GatewayOptions, disconnect_queue::Grace},
    rooms::Namespaces,
    trace::ClientTraces,
};
use rollcall_bus::PublishLimits;
use rollcall_websocket::{ListenerOptions, SocketOptions};

/// The options of the parts that serve connections.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// The options of the listener, without the certificate, which the node loads.
    pub listener: ListenerOptions,
    /// The limits of sockets.
    pub sockets: SocketOptions,
    /// The limits of the gateway.
    pub gateway: GatewayOptions,
    /// How long, and how many, sessions of broken connections are kept.
    pub grace: Grace,
    /// How long a handler may run.
    pub handler_timeout: Duration,
    /// The largest event that is forwarded, in bytes.
    pub max_forward: usize,
    /// How many events of handlers and services may wait until they are stored.
    pub publish: PublishLimits,
    /// The namespaces of Socket.IO.
    pub namespaces: Namespaces,
    /// How long after the end of its session a client of Socket.IO may resume. `None` if no client may.
    pub recovery: Option<Duration>,
}

impl LimitsConfig {
    pub(super) fn read(source: &mut Source<'_>, access: &AccessConfig, traces: ClientTraces) -> Self {
        let ping_interval = source.value(&names::PING_INTERVAL, value::time_limit);
        let pong_timeout = source.value(&names::PONG_TIMEOUT, value::time_limit);
        if pong_timeout >= ping_interval {
            source.fault(&names::PONG_TIMEOUT, format!("must be shorter than {}", names::PING_INTERVAL.name));
        }
        let max_message = source.value(&names::MAX_MESSAGE, value::size);
        let namespaces = source.value(&names::SOCKETIO_NAMESPACES, |text| value::list(text, value::namespace));
        if namespaces.len() > Namespaces::MAX {
            source.fault(&names::SOCKETIO_NAMESPACES, format!("at most {}", Namespaces::MAX));
        }
        let recovers = source.value(&names::SOCKETIO_RECOVERY, value::switch);
        let window = source.value(&names::SOCKETIO_RECOVERY_WINDOW, value::time_limit);
        let max_in_grace = match source.value(&names::MAX_IN_GRACE, value::count(0)) {
            0 => access.admission.connections.div_ceil(4),
            max => max,
        };
        Self {
            listener: ListenerOptions {
                origins: source.optional(&names::ORIGINS, value::origins).unwrap_or_default(),
                proxy_protocol: access.proxy_protocol,
                max_half_open: access.half_open,
                engine_path: source.value(&names::SOCKETIO_PATH, value::path),
                head_timeout: source.value(&names::HEAD_TIMEOUT, value::time_limit),
                max_head: source.value(&names::MAX_HEAD, value::size),
                ..ListenerOptions::default()
            },
            sockets: SocketOptions {
                send_budget: source.value(&names::MAX_IN_FLIGHT, value::size),
                max_message,
                engine_pong_timeout: source.value(&names::SOCKETIO_PING_TIMEOUT, value::time_limit),
                max_fragments: source.value(&names::MAX_FRAGMENTS, value::count(1)),
                max_outbound: source.value(&names::MAX_QUEUE, value::size),
                send_buffer: Some(source.value(&names::SEND_BUFFER, value::size)),
                ping_interval,
                pong_timeout,
                ..SocketOptions::default()
            },
            gateway: GatewayOptions {
                connect_timeout: source.value(&names::CONNECT_TIMEOUT, value::time_limit),
                ping_interval,
                max_message,
                max_pending: source.value(&names::MAX_PENDING, value::size),
                reset_spread: source.value(&names::RESET_SPREAD, value::duration),
                traces,
            },
            grace: Grace { time: source.value(&names::LEAVE_GRACE, value::duration), max: max_in_grace },
            handler_timeout: source.value(&names::HANDLER_TIMEOUT, value::time_limit),
            max_forward: source.value(&names::MAX_FORWARD, value::size),
            publish: PublishLimits {
                events: source.value(&names::PUBLISH_QUEUE, value::count(1)),
                bytes: source.value(&names::PUBLISH_QUEUE_BYTES, value::size),
            },
            namespaces: namespaces.into_iter().collect(),
            recovery: recovers.then_some(window),
        }
    }
}
