//! Sends on one connection, pauses it and closes it, for the application and the worker.
use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use rollcall_socketio::engine;

use crate::{
    close::{Cause, Close},
    connection::{Connection, ConnectionState, WorkerContext},
    frame,
    framing::Framing,
    id::SocketId,
    send_queue::SendQueue,
};

/// The bytes of the send queue that are kept free for a last message and its close frame.
const CLOSE_RESERVE: usize = 1024;

/// The size of the largest encoding buffer that is kept for the next frame.
const MAX_KEPT: usize = 64 << 10;

/// One connection without the application's state.
#[derive(Debug)]
pub struct SocketIo<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) context: &'a mut WorkerContext,
    pub(crate) id: SocketId,
}

impl SocketIo<'_> {
    /// Returns the socket's id.
    #[must_use]
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// Returns the address of the other end. `None` once the connection broke.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.connection.transport.remote()
    }

    /// Returns whether the connection is neither closing nor broken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.connection.state, ConnectionState::Open { .. })
    }

    /// Returns how messages are written on this connection, for [`SocketIo::send_frames`].
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.connection.framing()
    }

    /// Returns the queued bytes that the kernel has not taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.connection.send_queue.as_ref().map_or(0, |queue| queue.charged())
    }

    /// Sends one text message. A closing socket sends nothing, and a full queue ends the connection.
    pub fn send_text(&mut self, text: &[u8]) {
        let framing = self.framing();
        self.send(|frame| framing.encode_text(text, frame));
    }

    /// Sends one binary message.
    pub fn send_binary(&mut self, data: &[u8]) {
        let framing = self.framing();
        self.send(|frame| framing.encode_binary(data, frame));
    }

    /// Sends a packet of Engine.IO other than a message.
    pub(crate) fn send_packet(&mut self, packet: &str) {
        let framing = self.framing();
        self.send(|frame| framing.encode_packet(packet, frame));
    }

    fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.is_open() {
            let mut frame = std::mem::take(&mut self.context.encoded);
            encode(&mut frame);
            self.transmit(&frame, |taken| Bytes::copy_from_slice(&frame[taken..]));
            if frame.capacity() <= MAX_KEPT {
                frame.clear();
                self.context.encoded = frame;
            }
        }
    }

    /// Sends one or more messages that were encoded for this framing ([`Framing::encode_text`]). If they must wait,
    /// they are shared and not copied.
    pub fn send_frames(&mut self, frames: &Bytes) {
        if self.is_open() {
            self.transmit(frames, |taken| frames.slice(taken..));
        }
    }

    /// Closes the connection: sends the last message, the close frame and the server's FIN, and then awaits the
    /// client's FIN.
    pub fn close(&mut self, close: impl Into<Close>, last: Option<&[u8]>) {
        if self.is_open() {
            self.start_close(Some(close.into()), last);
            self.context.ended.push((self.id, Cause::ClosedByServer));
        }
    }

    /// Stops waiting for the client's FIN if the connection is closing and everything has been sent. Otherwise it does
    /// nothing, because dropping the socket with unread input would destroy what is still being sent.
    pub fn finish_close(&mut self) {
        if matches!(self.connection.state, ConnectionState::Closing { .. }) && self.connection.send_queue.is_none() {
            self.connection.state = ConnectionState::Broken;
        }
    }

    /// Delivers no more messages until `resume`. Input that was read is kept, at most one full read buffer. Meanwhile
    /// the connection is not closed because its client is silent, and the client is pinged only if it relies on pings.
    pub fn pause(&mut self) {
        if !std::mem::replace(&mut self.connection.paused, true) {
            self.note_paused();
        }
    }

    /// Ends a pause, and delivers messages again.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.connection.paused) {
            if let ConnectionState::Open { pinged } = &mut self.connection.state {
                *pinged = None;
            }
            self.note_paused();
            self.requeue();
        }
    }
}

/// What the layer itself does with a connection.
impl SocketIo<'_> {
    /// Writes what the kernel takes, and queues the rest: `rest(taken)`. If the queue is empty, a message of any size
    /// is accepted, because the limit is for clients that do not read what already waits.
    pub(crate) fn transmit(&mut self, bytes: &[u8], rest: impl FnOnce(usize) -> Bytes) {
        let charge = SendQueue::charge(bytes.len());
        let waiting = self.connection.send_queue.as_ref().map(|queue| (queue.charged(), queue.stalled_since));
        let taken = match waiting {
            Some((charged, _)) if charged + charge + CLOSE_RESERVE > self.context.options.max_outbound => {
                return self.mark_closing(Cause::SlowConsumer);
            }
            // A client that took bytes within this tick or the last may be reading. So the worker closes the slowest
            // clients at the end of this iteration instead.
            Some((_, since)) if since + 1 < self.context.now && self.context.send_budget.is_exceeded(charge) => {
                return self.shed();
            }
            Some(_) => 0,
            None => match self.connection.transport.write(bytes) {
                Ok(taken) => taken.unwrap_or(0),
                Err(_) => return self.abort(),
            },
        };
        if self.connection.transport.pending() {
            self.send_queue();
        }
        if taken < bytes.len() {
            self.send_queue().push(rest(taken));
            self.note_payload();
        }
    }

    pub(crate) fn send_queue(&mut self) -> &mut SendQueue {
        let (now, budget) = (self.context.now, &self.context.send_budget);
        self.connection.send_queue.get_or_insert_with(|| Box::new(SendQueue::new(now, Arc::clone(budget))))
    }

    /// Ends the connection for `cause`. The worker sends the close notice in this iteration of its loop.
    pub(crate) fn mark_closing(&mut self, cause: Cause) {
        if self.is_open() {
            self.connection.state = ConnectionState::MarkedClosing;
            self.context.ended.push((self.id, cause));
        }
    }

    /// Adds the connection to the worker's `ready` queue.
    pub(crate) fn requeue(&mut self) {
        if !self.connection.queued {
            self.connection.queued = true;
            self.context.ready.push_back(self.id);
        }
    }

    pub(crate) fn ping(&mut self) {
        if self.connection.engine_since.is_some() {
            return self.send_packet(engine::PING);
        }
        self.transmit(&frame::PING, |taken| Bytes::from_static(&frame::PING).slice(taken..));
    }

    /// Sends encoded pongs at once. While the client does not read, only the last pong is kept, which begins at
    /// `latest`.
    pub(crate) fn pong(&mut self, pongs: &[u8], latest: usize) {
        if pongs.is_empty() || !self.is_open() {
            return;
        }
        match &mut self.connection.send_queue {
            Some(queue) => queue.pong = Some(Bytes::copy_from_slice(&pongs[latest..])),
            None => self.transmit(pongs, |taken| Bytes::copy_from_slice(&pongs[taken..])),
        }
    }

    /// Queues the last message and the close frame. The server's FIN follows as soon as both have been sent.
    pub(crate) fn start_close(&mut self, close: Option<Close>, last: Option<&[u8]>) {
        if let Some(carrier) = self.carrier() {
            return self.start_carried_close(carrier, close, last);
        }
        let framing = self.framing();
        if framing == Framing::Polling {
            return self.start_polling_close(last);
        }
        let reason = close.map_or(0, |close| close.reason.len());
        let mut frames = Vec::with_capacity(last.map_or(0, |text| text.len() + 1 + frame::MAX_HEADER) + 4 + reason);
        if let Some(text) = last {
            framing.encode_text(text, &mut frames);
        }
        frame::encode_close(close, &mut frames);
        self.connection.decoder = None;
        let queue = self.send_queue();
        queue.pong = None;
        queue.push(Bytes::from(frames));
        let deadline = self.context.now + self.context.options.ticks(self.context.options.flush_timeout);
        self.connection.state = ConnectionState::Closing { deadline, drained: 0 };
        self.flush();
    }

    /// Gives queued bytes to the kernel. After the close frame the server's FIN follows.
    pub(crate) fn flush(&mut self) {
        let now = self.context.now;
        let Some(queue) = &mut self.connection.send_queue else { return };
        match queue.flush(&mut self.connection.transport, now) {
            Ok(false) => {}
            Ok(true) => {
                self.connection.send_queue = None;
                if let ConnectionState::Closing { deadline, .. } = &mut self.connection.state {
                    *deadline = now + self.context.options.ticks(self.context.options.close_timeout);
                    self.finish();
                }
            }
            Err(_) => self.abort(),
        }
    }

    /// Sends the server's FIN. Input is discarded until the client's FIN.
    fn finish(&mut self) {
        if self.connection.transport.finish().is_err() {
            self.abort();
        } else if self.connection.readable || self.connection.finished {
            self.connection.readable = true;
            self.requeue();
        }
    }

    /// Drops the connection because its stream cannot be used any more. The cause is `Lost`, unless the connection has
    /// ended already.
    pub(crate) fn abort(&mut self) {
        self.connection.state = ConnectionState::Broken;
        self.context.ended.push((self.id, Cause::Lost));
    }
}
