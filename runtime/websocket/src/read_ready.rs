//! Reads one connection's input, at most one read buffer full, and delivers its messages.
use crate::{
    application::Application,
    close::{Cause, Close},
    connection::ConnectionState,
    frame,
    id::SocketId,
    message_decoder::{Decoded, MessageDecoder},
    socket_io::SocketIo,
    sockets::{Socket, Sockets},
};

/// Bytes of a worker's one read buffer.
const READ_BUFFER: usize = 64 << 10;
/// Messages delivered from one connection in one iteration of the worker's loop.
const MAX_MESSAGES: u32 = 256;
/// Bytes of pongs sent to one client in one iteration; of more, only the latest pong is sent.
const MAX_PONGS: usize = 4 << 10;

/// Buffers that a worker's connections share.
#[derive(Debug)]
pub(crate) struct ReadBuffers {
    input: Box<[u8]>,
    pongs: Vec<u8>,
}

impl ReadBuffers {
    pub(crate) fn new() -> Self {
        Self { input: vec![0; READ_BUFFER].into(), pongs: Vec::new() }
    }

    /// Reads from a connection and delivers what came; requeues the connection if there is more.
    pub(crate) fn read_ready<A: Application>(
        &mut self,
        application: &mut A,
        sockets: &mut Sockets<A::Peer>,
        id: SocketId,
    ) {
        let Some(SocketIo { connection, .. }) = sockets.io(id) else { return };
        if connection.paused && matches!(connection.state, ConnectionState::Open { .. }) {
            return;
        }
        let unparsed = connection.decoder.as_deref_mut().map(|decoder| std::mem::take(&mut decoder.unparsed));
        if let Some(mut unparsed) = unparsed.filter(|unparsed| !unparsed.is_empty()) {
            self.deliver(application, sockets, id, &mut unparsed);
            if let Some(mut io) = sockets.io(id).filter(|io| io.connection.readable) {
                io.requeue();
            }
        } else if connection.readable {
            let mut input = std::mem::take(&mut self.input);
            if let Some(size) = receive(sockets, id, &mut input) {
                self.deliver(application, sockets, id, &mut input[..size]);
            }
            self.input = input;
        }
    }

    /// Delivers messages until the input or `MAX_MESSAGES` is used up, or the application pauses or closes.
    pub(crate) fn deliver<A: Application>(
        &mut self,
        application: &mut A,
        sockets: &mut Sockets<A::Peer>,
        id: SocketId,
        mut input: &mut [u8],
    ) {
        let Some(entry) = sockets.slab.get_mut(id.index()) else { return };
        let Some(peer) = &mut entry.peer else { return };
        // Taken out of the entry, because the application borrows the entry.
        let mut kept = entry.connection.decoder.take();
        let mut fresh = MessageDecoder::default();
        let decoder = kept.as_deref_mut().unwrap_or(&mut fresh);
        let io = SocketIo { connection: &mut entry.connection, context: &mut sockets.context, id };
        let mut socket = Socket { peer, io };
        let pongs = &mut self.pongs;
        pongs.clear();
        let mut latest = 0;
        let mut messages = 0;
        let options = socket.io.context.options.clone();
        let ended = loop {
            if !socket.is_open() || socket.connection.paused || messages == MAX_MESSAGES {
                break None;
            }
            match decoder.next(&mut input, &options) {
                Ok(Some(Decoded::Message(message))) => {
                    messages += 1;
                    // Pongs go before the answers to later messages.
                    socket.pong(pongs, latest);
                    pongs.clear();
                    application.message(&mut socket, message);
                }
                Ok(Some(Decoded::Ping(payload))) => {
                    if pongs.len() > MAX_PONGS {
                        pongs.clear();
                    }
                    latest = pongs.len();
                    frame::encode_pong(payload, pongs);
                }
                Ok(Some(Decoded::Pong)) => {}
                Ok(Some(Decoded::Close(code))) => break Some((code, Cause::ClosedByClient)),
                Ok(None) => break None,
                Err(violation) => break Some((Some(violation.code()), Cause::Violation(violation))),
            }
        };
        socket.pong(pongs, latest);
        if !socket.is_open() {
            return;
        }
        if let Some((code, cause)) = ended {
            socket.start_close(code.map(Close::from), None);
            socket.context.ended.push((id, cause));
            return;
        }
        if !input.is_empty() {
            decoder.unparsed = input.to_vec();
            if !socket.connection.paused {
                socket.requeue();
            }
        }
        if !decoder.is_idle() {
            socket.connection.decoder = Some(kept.unwrap_or_else(|| Box::new(fresh)));
        }
    }
}

/// Reads once; returns how many bytes are to be delivered.
fn receive<P>(sockets: &mut Sockets<P>, id: SocketId, input: &mut [u8]) -> Option<usize> {
    let mut io = sockets.io(id)?;
    let size = match io.connection.transport.read(input) {
        Ok(Some(0)) if io.connection.send_queue.is_some() && !io.is_open() => {
            // The client may still read: our FIN follows when the queue has left.
            (io.connection.readable, io.connection.finished) = (false, true);
            return None;
        }
        Ok(Some(0)) | Err(_) => {
            io.abort();
            return None;
        }
        Ok(Some(size)) => size,
        Ok(None) => {
            io.connection.readable = false;
            return None;
        }
    };
    // A short read has emptied the socket, so the next byte raises a new event. But a FIN that has come already does not.
    if size == input.len() || io.connection.finished || !io.connection.transport.short_read_is_last() {
        io.requeue();
    } else {
        io.connection.readable = false;
    }
    match &mut io.connection.state {
        ConnectionState::Open { pinged } => {
            *pinged = None;
            return Some(size);
        }
        ConnectionState::Closing { drained, .. } => {
            *drained = drained.saturating_add(size as u32);
            if *drained as usize > io.context.options.max_drain {
                io.abort();
            }
        }
        ConnectionState::MarkedClosing | ConnectionState::Broken => {}
    }
    None
}
