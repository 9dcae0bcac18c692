//! One connection's state, and what all connections of a worker share. An idle connection costs its slab entry only.
//!
//! Invariant: `decoder` exists only while a message or frame is incomplete (or a pause holds input back), `send_queue`
//! only while the kernel refuses bytes.
use std::{collections::VecDeque, num::NonZeroU32, sync::Arc};

use crate::{
    close::Cause, id::SocketId, message_decoder::MessageDecoder, options::SocketOptions, send_budget::SendBudget,
    send_queue::SendQueue, transport::Transport,
};

/// The stage of a connection. Times are the worker's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// Messages flow.
    Open {
        /// When the client was pinged, if it has sent nothing since.
        pinged: Option<NonZeroU32>,
    },
    /// To be closed: the worker sends the close notice in this iteration of its loop.
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
}

/// The layer's part of a slab entry.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) generation: u32,
    pub(crate) state: ConnectionState,
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
            paused: false,
            readable: false,
            finished: false,
            queued: false,
            decoder: None,
            send_queue: None,
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
}
