//! One worker's state, and what all workers share.
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Mailboxes, Pids, disconnect_queue::DisconnectQueue, enumerate::Enumeration, fanout::Fanout,
    lost_events::LostEventCloses, options::GatewayOptions, peer::Ending,
};
use crate::{
    handler::handlers::Handlers,
    limits::{EventLimits, admission::Admission},
    rooms::Rooms,
};
use rollcall_presence::Presence;
use rollcall_websocket::SocketId;

/// The longest time that a client is told to wait before it reconnects, unless there is a reason for a shorter one.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(2);

/// What the workers share.
pub struct GatewayContext {
    /// The handlers.
    pub table: Handlers,
    /// Gets the sessions of connections that have ended.
    pub disconnects: DisconnectQueue,
    /// Takes connections out of their lessons.
    pub presence: Presence,
    /// Where replays come from.
    pub rooms: Rooms,
    /// How a handler's task reaches its worker.
    pub mailboxes: Mailboxes,
    /// Makes and reads the pids of clients of Socket.IO; none where recovery is off.
    pub pids: Option<Pids>,
    /// How many events a connection may send.
    pub events: Arc<EventLimits>,
    /// Whether there is room for one more connection.
    pub admission: Arc<Admission>,
}

/// One worker's part of the gateway.
pub struct Gateway {
    pub(super) shared: Arc<GatewayContext>,
    pub(super) options: GatewayOptions,
    pub(super) fanout: Fanout,
    /// Connections that ended while their handler ran, and how. It is used when the session comes back.
    pub(super) closed_while_busy: HashMap<SocketId, Ending>,
    /// Connections in further namespaces of a transport (the first of each pair) that are about to be let in.
    pub(super) awaiting_claims: Vec<(SocketId, SocketId)>,
    pub(super) enumeration: Enumeration,
    pub(super) lost_event_closes: LostEventCloses,
    pub(super) started: Instant,
    /// Each client is told to wait a random part of this before it reconnects, so that clients do not come back together.
    pub(super) reconnect_within: Duration,
    /// The drain has begun: clients that connect from now on are told so.
    pub(super) draining: bool,
}

impl Gateway {
    /// A worker's part, without connections.
    #[must_use]
    pub fn new(shared: Arc<GatewayContext>, options: GatewayOptions) -> Self {
        let now = Instant::now();
        Self {
            lost_event_closes: LostEventCloses::new(options.reset_spread, now),
            shared,
            options,
            fanout: Fanout::new(),
            closed_while_busy: HashMap::new(),
            awaiting_claims: Vec::new(),
            enumeration: Enumeration::default(),
            started: now,
            reconnect_within: RECONNECT_WITHIN,
            draining: false,
        }
    }
}
