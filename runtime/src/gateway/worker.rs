//! The state of one worker, and the state that all workers share.
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

/// The state that the workers share.
pub struct GatewayContext {
    /// The handlers.
    pub table: Handlers,
    /// Receives the sessions of connections that have ended.
    pub disconnects: DisconnectQueue,
    /// Takes connections out of their lessons.
    pub presence: Presence,
    /// The source of replays.
    pub rooms: Rooms,
    /// Sends the results of a handler's task to its worker.
    pub mailboxes: Mailboxes,
    /// Makes and reads the pids of clients of Socket.IO. `None` if recovery is off.
    pub pids: Option<Pids>,
    /// How many events a connection may send.
    pub events: Arc<EventLimits>,
    /// Decides whether there is room for one more connection.
    pub admission: Arc<Admission>,
}

/// The state of one worker.
pub struct Gateway {
    pub(super) shared: Arc<GatewayContext>,
    pub(super) options: GatewayOptions,
    pub(super) fanout: Fanout,
    /// The connections that ended while their handler ran, and how they ended. The entry is used when the session comes
    /// back.
    pub(super) closed_while_busy: HashMap<SocketId, Ending>,
    /// The connections in further namespaces that are about to be let in. Each pair has the transport first.
    pub(super) awaiting_claims: Vec<(SocketId, SocketId)>,
    pub(super) enumeration: Enumeration,
    pub(super) lost_event_closes: LostEventCloses,
    pub(super) started: Instant,
    /// Each client is told to wait a random part of this time before it reconnects, so that clients do not all come
    /// back at once.
    pub(super) reconnect_within: Duration,
    /// Whether the drain has begun. Clients that connect from now on are told so.
    pub(super) draining: bool,
}

impl Gateway {
    /// Creates the state of a worker without connections.
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
