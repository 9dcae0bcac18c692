//! The state of one connection, and what all connections of a worker share. An idle connection only costs its slab
//! entry.
//!
//! Invariant: `decoder` exists only while a message or frame is incomplete, or a pause holds input back. `send_queue`
//! exists only while the kernel takes no bytes.
use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Instant,
};

use metrics::Gauge;

use crate::{
    close::{Cause, Close},
    connection_count::WorkerCount,
    engine::Engine,
    framing::Framing,
    id::SocketId,
    load::Load,
    message_decoder::MessageDecoder,
    options::SocketOptions,
    polling_session::Probe,
    send_budget::SendBudget,
    send_queue::SendQueue,
    transport::Transport,
};

/// The stage of a connection. Times are ticks of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// Messages are read and sent.
    Open {
        /// When the client was pinged, if it has sent nothing since.
        pinged: Option<NonZeroU32>,
    },
    /// The connection must be closed. The worker sends the close notice in this iteration of its loop.
    MarkedClosing,
    /// The stream cannot be used any more. The worker removes the entry in this iteration of its loop.
    Broken,
    /// The close frame is queued or sent. Input is discarded until the client's FIN or the deadline.
    Closing {
        /// The tick at which the connection is dropped.
        deadline: u32,
        /// How many bytes of input were discarded.
        drained: u32,
    },
    /// A GET of a long-polling session that waits for packets. It has no peer.
    Parked(Session),
    /// A WebSocket that is to become the transport of a long-polling session. It has no peer.
    Probing(Session),
}

/// The long-polling session of a connection: the two halves of its [`SocketId`], which need no alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session(u32, u32);

impl From<SocketId> for Session {
    fn from(id: SocketId) -> Self {
        let bits = id.to_bits();
        Self((bits >> 32) as u32, bits as u32)
    }
}

impl From<Session> for SocketId {
    fn from(Session(high, low): Session) -> Self {
        Self::from_bits(u64::from(high) << 32 | u64::from(low))
    }
}

/// The layer's part of a slab entry.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) generation: u32,
    pub(crate) state: ConnectionState,
    /// The tick that is nearest to the handshake of an Engine.IO session. The session's pings are counted from it.
    pub(crate) engine_since: Option<NonZeroU32>,
    /// The application wants no messages now.
    pub(crate) paused: bool,
    /// The kernel has reported input, and has not answered "would block" since.
    pub(crate) readable: bool,
    /// The kernel has reported the client's FIN or a reset. Data may come before it.
    pub(crate) finished: bool,
    /// The connection is in the worker's `ready` queue.
    pub(crate) queued: bool,
    pub(crate) decoder: Option<Box<MessageDecoder>>,
    pub(crate) send_queue: Option<Box<SendQueue>>,
}

impl Connection {
    pub(crate) fn new(transport: Transport, generation: u32) -> Self {
        Self {
            transport,
            generation,
            state: ConnectionState::Open { pinged: None },
            engine_since: None,
            paused: false,
            readable: false,
            finished: false,
            queued: false,
            decoder: None,
            send_queue: None,
        }
    }

    /// Returns how messages are written on the connection.
    pub(crate) fn framing(&self) -> Framing {
        match (&self.transport, self.engine_since) {
            (Transport::Polling(_), _) => Framing::Polling,
            (Transport::Carried { framing, .. }, _) => *framing,
            (_, Some(_)) => Framing::EngineWebSocket,
            (_, None) => Framing::WebSocket,
        }
    }
}

/// What all connections of a worker share.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    pub(crate) worker: u8,
    pub(crate) options: SocketOptions,
    /// A buffer for encoding a frame. It is empty between two sends.
    pub(crate) encoded: Vec<u8>,
    /// The present tick. Ticks start at 1.
    pub(crate) now: u32,
    /// When the current tick began.
    pub(crate) ticked: Instant,
    pub(crate) send_budget: Arc<SendBudget>,
    /// Connections that ended in this iteration of the loop and must be reported to the application.
    pub(crate) ended: Vec<(SocketId, Cause)>,
    /// Connections that have more to read or to deliver than one iteration allows.
    pub(crate) ready: VecDeque<SocketId>,
    /// The generation of the newest socket.
    pub(crate) generation: u32,
    /// The registry of transports.
    pub(crate) registry: mio::Registry,
    /// The number of slab entries and of connections on their way to this worker. The listener reads it.
    pub(crate) connections: Arc<WorkerCount>,
    pub(crate) gauge: Gauge,
    /// The part of Engine.IO that all workers share.
    pub(crate) engine: Arc<Engine>,
    /// Long-polling sessions that may have packets for a waiting GET.
    pub(crate) payloads: Vec<SocketId>,
    /// WebSockets that are to become the transport of a session.
    pub(crate) probes: Vec<Probe>,
    /// The connections that each carrier carries, by the carrier's index.
    pub(crate) loads: HashMap<usize, Load>,
    /// Carried connections on which something was sent in this iteration of the loop.
    pub(crate) carried_sends: Vec<SocketId>,
    /// Carriers that must be closed, because a connection that they carry is closed.
    pub(crate) carrier_closes: Vec<(usize, Close)>,
}
