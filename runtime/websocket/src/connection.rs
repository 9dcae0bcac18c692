//! One connection's state, and what all connections of a worker share. An idle connection costs its slab entry only.
//!
//! Invariant: `decoder` exists only while a message or frame is incomplete (or a pause holds input back), `send_queue`
//! only while the kernel refuses bytes.
use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
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

/// The stage of a connection. Times are the worker's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// Messages flow.
    Open {
        /// When the client was pinged, if it has sent nothing since.
        pinged: Option<NonZeroU32>,
    },
    /// It must be closed: the worker sends the close notice in this iteration of its loop.
    MarkedClosing,
    /// The stream is unusable: the worker removes the entry in this iteration of its loop.
    Broken,
    /// The close frame is queued or sent: input is discarded until the client's FIN or the deadline.
    Closing {
        /// When the connection is dropped.
        deadline: u32,
        /// Bytes discarded.
        drained: u32,
    },
    /// A GET of a long-polling session, which waits for packets. It has no peer.
    Parked(Session),
    /// A WebSocket that is to become the transport of a long-polling session. It has no peer.
    Probing(Session),
}

/// The long-polling session that a connection is for: its [`SocketId`] in halves, which need no alignment.
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
    /// The tick of an Engine.IO session's handshake, from which its pings are counted.
    pub(crate) engine_since: Option<NonZeroU32>,
    /// The application wants no messages now.
    pub(crate) paused: bool,
    /// The kernel has reported something to read, and has not answered "would block" since.
    pub(crate) readable: bool,
    /// The kernel has reported the client's FIN or a reset; data may come before it.
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

    /// How messages are sent on it.
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
    /// Buffer for encoding a frame; empty between two sends.
    pub(crate) encoded: Vec<u8>,
    /// The current tick; starts at 1.
    pub(crate) now: u32,
    pub(crate) send_budget: Arc<SendBudget>,
    /// Connections that ended in this iteration of the loop, to be reported to the application.
    pub(crate) ended: Vec<(SocketId, Cause)>,
    /// Connections with more to read or deliver than one iteration allows.
    pub(crate) ready: VecDeque<SocketId>,
    /// The generation of the newest socket.
    pub(crate) generation: u32,
    /// Where transports are registered.
    pub(crate) registry: mio::Registry,
    /// Slab entries, and connections on their way here; the listener reads it.
    pub(crate) connections: Arc<WorkerCount>,
    pub(crate) gauge: Gauge,
    /// What all workers share of Engine.IO.
    pub(crate) engine: Arc<Engine>,
    /// Long-polling sessions that may have packets for a waiting GET.
    pub(crate) payloads: Vec<SocketId>,
    /// WebSockets that are to become the transport of a session.
    pub(crate) probes: Vec<Probe>,
    /// What connections carry besides themselves, by their index.
    pub(crate) loads: HashMap<usize, Load>,
    /// Carried connections on which something was sent in this iteration of the loop.
    pub(crate) carried_sends: Vec<SocketId>,
    /// Carriers that are to be closed, since what they carry is.
    pub(crate) carrier_closes: Vec<(usize, Close)>,
}
