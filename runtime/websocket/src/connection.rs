//! One connection as its worker keeps it: what a parked one costs is this entry and nothing else.
//!
//! Invariant: `inbound` exists only while a message or frame is partly here (or held back by a pause), `outbound` only
//! while the kernel refuses bytes.
use bytes::Bytes;
use fastwebsockets::OpCode;
use std::{collections::VecDeque, net::SocketAddr, num::NonZeroU32, sync::Arc};

use super::{
    Cause, Close, SocketId, SocketOptions, frame, inbound::Inbound, outbound::Outbound, send_budget::SendBudget,
    transport::Transport,
};

/// Kept free in the outbound queue for a farewell and its close frame.
const FAREWELL: usize = 1024;

/// The longest frame whose buffer is kept for the next.
const KEPT: usize = 64 << 10;

/// Where the connection stands. Times are the worker's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// Messages flow.
    Open {
        /// When the client was pinged, if it has not been heard since.
        pinged: Option<NonZeroU32>,
    },
    /// Given up within this turn; the worker has yet to say farewell.
    Condemned,
    /// The stream is of no use any more; the worker removes the entry within this turn.
    Broken,
    /// The close frame is queued or sent: input is thrown away until the client's FIN or the deadline.
    Closing {
        /// When to give up.
        deadline: u32,
        /// Bytes thrown away.
        drained: u32,
    },
}

/// The layer's half of an entry.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) transport: Transport,
    pub(super) generation: u32,
    pub(super) phase: ConnectionState,
    /// The application wants no messages now.
    pub(super) paused: bool,
    /// The kernel has said that there is something to read, and has not been asked since.
    pub(super) readable: bool,
    /// The client's FIN or a reset is on its way to us, maybe behind data.
    pub(super) finished: bool,
    /// Waits in the worker's queue for another turn.
    pub(super) queued: bool,
    pub(super) inbound: Option<Box<Inbound>>,
    pub(super) outbound: Option<Box<Outbound>>,
}

impl Connection {
    pub(super) fn new(transport: Transport, generation: u32) -> Self {
        Self {
            transport,
            generation,
            phase: ConnectionState::Open { pinged: None },
            paused: false,
            readable: false,
            finished: false,
            queued: false,
            inbound: None,
            outbound: None,
        }
    }
}

/// What all connections of a worker share.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) worker: u8,
    pub(super) options: SocketOptions,
    /// For a frame on its way into the kernel; empty in between.
    pub(super) encoded: Vec<u8>,
    /// The tick it is; starts at 1.
    pub(super) now: u32,
    /// What waits for slow readers.
    pub(super) in_flight: Arc<SendBudget>,
    /// Connections that ended within this turn, for the worker to tell the application.
    pub(super) ended: Vec<(SocketId, Cause)>,
    /// Connections with more to read or deliver than one turn allows.
    pub(super) ready: VecDeque<SocketId>,
}

/// An entry's layer half in the hands of the application.
#[derive(Debug)]
pub struct SocketIo<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) shared: &'a mut WorkerContext,
    pub(super) id: SocketId,
}

impl SocketIo<'_> {
    /// The socket's name.
    #[must_use]
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// The address at the other end; `None` once the connection broke.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.connection.transport.remote()
    }

    /// Whether what is sent has a chance to arrive.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.connection.phase, ConnectionState::Open { .. })
    }

    /// Bytes that the kernel has not taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.connection.outbound.as_ref().map_or(0, |outbound| outbound.charged())
    }

    /// Sends one text message. Nothing is sent on a closing socket; a full queue ends the connection.
    pub fn send_text(&mut self, text: &[u8]) {
        self.send(OpCode::Text, text);
    }

    /// Sends one binary message.
    pub fn send_binary(&mut self, data: &[u8]) {
        self.send(OpCode::Binary, data);
    }

    fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        if self.is_open() {
            let mut frame = std::mem::take(&mut self.shared.encoded);
            frame::encode(opcode, payload, &mut frame);
            self.transmit(&frame, |taken| Bytes::copy_from_slice(&frame[taken..]));
            if frame.capacity() <= KEPT {
                frame.clear();
                self.shared.encoded = frame;
            }
        }
    }

    /// Sends frames that are encoded already ([`super::encode_text`]), one or many; shared, not copied, if they wait.
    pub fn send_frames(&mut self, frames: &Bytes) {
        if self.is_open() {
            self.transmit(frames, |taken| frames.slice(taken..));
        }
    }

    /// Closes the connection: the last message, a close frame with `code`, our FIN; then the client's is awaited.
    pub fn close(&mut self, close: impl Into<Close>, last: Option<&[u8]>) {
        if self.is_open() {
            self.hang_up(Some(close.into()), last);
            self.shared.ended.push((self.id, Cause::Ours));
        }
    }

    /// Gives up on the client's FIN, if the connection is closed and everything has left. Unread input would destroy what is
    /// on its way.
    pub fn release(&mut self) {
        if matches!(self.connection.phase, ConnectionState::Closing { .. }) && self.connection.outbound.is_none() {
            self.connection.phase = ConnectionState::Broken;
        }
    }

    /// Delivers no more messages until `resume`. What was read stays, at most one scratch full; the client's
    /// silence counts for nothing meanwhile.
    pub fn pause(&mut self) {
        self.connection.paused = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.connection.paused) {
            if let ConnectionState::Open { pinged } = &mut self.connection.phase {
                *pinged = None;
            }
            self.requeue();
        }
    }
}

/// What the layer itself does with a connection.
impl SocketIo<'_> {
    /// Writes what the kernel takes and keeps the rest: `rest(taken)`. Into an empty queue a send of any size goes
    /// whole; the limit is for those who do not take what is already waiting.
    fn transmit(&mut self, bytes: &[u8], rest: impl FnOnce(usize) -> Bytes) {
        let waiting = self.connection.outbound.as_ref().map(|outbound| (outbound.charged(), outbound.stalled));
        let taken = match waiting {
            Some((charged, _))
                if charged + Outbound::charge(bytes.len()) + FAREWELL > self.shared.options.max_outbound =>
            {
                return self.condemn(Cause::SlowConsumer);
            }
            // Who took something within this tick or the last may just be reading: the worker sheds the slowest after
            // this turn.
            Some((_, stalled))
                if stalled + 1 < self.shared.now && self.shared.in_flight.over(Outbound::charge(bytes.len())) =>
            {
                return self.shed();
            }
            Some(_) => 0,
            None => match self.connection.transport.write(bytes) {
                Ok(taken) => taken.unwrap_or(0),
                Err(_) => return self.give_up(),
            },
        };
        if self.connection.transport.pending() {
            self.outbound();
        }
        if taken < bytes.len() {
            self.outbound().push(rest(taken));
        }
    }

    fn outbound(&mut self) -> &mut Outbound {
        let (now, in_flight) = (self.shared.now, &self.shared.in_flight);
        self.connection.outbound.get_or_insert_with(|| Box::new(Outbound::new(now, Arc::clone(in_flight))))
    }

    /// Ends the connection for `cause`; the worker says farewell within this turn.
    pub(super) fn condemn(&mut self, cause: Cause) {
        if self.is_open() {
            self.connection.phase = ConnectionState::Condemned;
            self.shared.ended.push((self.id, cause));
        }
    }

    /// Asks for another turn, where one is of use.
    pub(super) fn requeue(&mut self) {
        if !self.connection.queued {
            self.connection.queued = true;
            self.shared.ready.push_back(self.id);
        }
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self) {
        self.transmit(&frame::PING, |taken| Bytes::from_static(&frame::PING).slice(taken..));
    }

    /// Sends encoded pongs at once; while the client takes nothing only the last is kept, which begins at `latest`.
    pub(super) fn pong(&mut self, pongs: &[u8], latest: usize) {
        if pongs.is_empty() || !self.is_open() {
            return;
        }
        match &mut self.connection.outbound {
            Some(outbound) => outbound.pong = Some(Bytes::copy_from_slice(&pongs[latest..])),
            None => self.transmit(pongs, |taken| Bytes::copy_from_slice(&pongs[taken..])),
        }
    }

    /// Last message, close frame, and our FIN as soon as both have left.
    pub(super) fn hang_up(&mut self, close: Option<Close>, last: Option<&[u8]>) {
        let reason = close.map_or(0, |close| close.reason.len());
        let mut frames = Vec::with_capacity(last.map_or(0, |text| text.len() + frame::MAX_HEADER) + 4 + reason);
        if let Some(text) = last {
            frame::encode_text(text, &mut frames);
        }
        frame::encode_close(close, &mut frames);
        self.connection.inbound = None;
        let outbound = self.outbound();
        outbound.pong = None;
        outbound.push(Bytes::from(frames));
        let deadline = self.shared.now + self.shared.options.ticks(self.shared.options.flush_timeout);
        self.connection.phase = ConnectionState::Closing { deadline, drained: 0 };
        self.flush();
    }

    /// Hands queued bytes to the kernel; behind the close frame goes our FIN.
    pub(super) fn flush(&mut self) {
        let now = self.shared.now;
        let Some(outbound) = &mut self.connection.outbound else { return };
        match outbound.flush(&mut self.connection.transport, now) {
            Ok(false) => {}
            Ok(true) => {
                self.connection.outbound = None;
                if let ConnectionState::Closing { deadline, .. } = &mut self.connection.phase {
                    *deadline = now + self.shared.options.ticks(self.shared.options.close_timeout);
                    self.finish();
                }
            }
            Err(_) => self.give_up(),
        }
    }

    /// Our FIN; whatever the client has sent until its own is to be thrown away.
    fn finish(&mut self) {
        if self.connection.transport.finish().is_err() {
            self.give_up();
        } else if self.connection.readable || self.connection.finished {
            self.connection.readable = true;
            self.requeue();
        }
    }

    /// The stream is of no use any more; if nothing else was the cause, it is lost.
    pub(super) fn give_up(&mut self) {
        self.connection.phase = ConnectionState::Broken;
        self.shared.ended.push((self.id, Cause::Lost));
    }
}
