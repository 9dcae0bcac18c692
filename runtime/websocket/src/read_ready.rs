//! Reads one connection's input, at most one read buffer of it, and delivers its messages.
use rollcall_socketio::{
    Malformed,
    engine::{self, EnginePacket, RequestError, SEPARATOR},
};

use crate::{
    application::Application,
    close::{Cause, Close, Violation},
    connection::{ConnectionState, Session},
    frame,
    framing::Framing,
    id::SocketId,
    message_decoder::{Decoded, Message, MessageDecoder},
    socket_io::SocketIo,
    sockets::{Socket, Sockets},
};

/// The size of a worker's read buffer in bytes.
const READ_BUFFER: usize = 64 << 10;
/// The maximum number of messages that are delivered from one connection in one iteration of the worker's loop.
const MAX_MESSAGES: u32 = 256;
/// The maximum number of bytes of pongs that are sent to one client in one iteration. If there are more, only the
/// latest pong is sent.
const MAX_PONGS: usize = 4 << 10;

/// The buffers that a worker's connections share.
#[derive(Debug)]
pub(crate) struct ReadBuffers {
    input: Box<[u8]>,
    pongs: Vec<u8>,
}

impl ReadBuffers {
    pub(crate) fn new() -> Self {
        Self { input: vec![0; READ_BUFFER].into(), pongs: Vec::new() }
    }

    /// Reads from a connection and delivers its messages. If there are more, the connection is queued again.
    pub(crate) fn read_ready<A: Application>(
        &mut self,
        application: &mut A,
        sockets: &mut Sockets<A::Peer>,
        id: SocketId,
    ) {
        let Some(io) = sockets.io(id) else { return };
        if io.is_open() && io.is_paused() {
            return;
        }
        let SocketIo { connection, .. } = io;
        if connection.framing() == Framing::Polling {
            return deliver_post(application, sockets, id);
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
        if let ConnectionState::Probing(session) = entry.connection.state {
            return self.deliver_probe(application, sockets, (id, session), input);
        }
        let Some(peer) = &mut entry.peer else { return };
        let is_engine = entry.connection.engine_since.is_some();
        // The decoder is taken out of the entry, because the application borrows the entry.
        let mut kept = entry.connection.decoder.take();
        let mut fresh = MessageDecoder::default();
        let decoder = kept.as_deref_mut().unwrap_or(&mut fresh);
        let io = SocketIo { connection: &mut entry.connection, context: &mut sockets.context, id };
        let mut socket = Socket { peer, io };
        let pongs = &mut self.pongs;
        pongs.clear();
        let mut latest = 0;
        let mut messages = 0;
        let mut options = socket.io.context.options.clone();
        options.binary |= is_engine;
        let ended = loop {
            if !socket.is_open() || socket.is_paused() || messages == MAX_MESSAGES {
                break None;
            }
            match decoder.next(&mut input, &options) {
                Ok(Some(Decoded::Message(message))) => {
                    messages += 1;
                    // Pongs are sent before the answers to later messages.
                    socket.pong(pongs, latest);
                    pongs.clear();
                    if !is_engine {
                        application.message(&mut socket, message);
                        continue;
                    }
                    let id = socket.id();
                    let delivered = deliver_packet(application, sockets, id, message);
                    let Some(again) = sockets.socket_at(id.index()) else { return };
                    socket = again;
                    if let Err(end) = delivered {
                        break Some(end);
                    }
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
            let id = socket.id();
            socket.context.ended.push((id, cause));
            return;
        }
        if !input.is_empty() {
            decoder.unparsed = input.to_vec();
            if !socket.is_paused() {
                socket.requeue();
            }
        }
        if !decoder.is_idle() {
            socket.connection.decoder = Some(kept.unwrap_or_else(|| Box::new(fresh)));
        }
    }

    /// Reads the messages of a WebSocket that is to become the transport of a session. The messages after that are the
    /// session's.
    fn deliver_probe<A: Application>(
        &mut self,
        application: &mut A,
        sockets: &mut Sockets<A::Peer>,
        (id, session): (SocketId, Session),
        mut input: &mut [u8],
    ) {
        let Some(io) = sockets.io(id) else { return };
        let mut decoder = io.connection.decoder.take().unwrap_or_default();
        let options = io.context.options.clone();
        while sockets.is_probing(id) {
            match decoder.next(&mut input, &options) {
                Ok(Some(Decoded::Message(Message::Text(text)))) if text == engine::PROBE.0 => {
                    sockets.on_probed(id, session);
                }
                Ok(Some(Decoded::Message(Message::Text(text)))) if text == engine::UPGRADE => {
                    if let Some(socket) = sockets.on_upgrade(id, session) {
                        self.deliver(application, sockets, socket, input);
                    }
                    return;
                }
                Ok(Some(Decoded::Ping(payload))) => {
                    let mut pong = Vec::new();
                    frame::encode_pong(payload, &mut pong);
                    sockets.answer_probe(id, &pong);
                }
                Ok(Some(Decoded::Pong)) => {}
                Ok(None) => break,
                Ok(Some(Decoded::Message(_) | Decoded::Close(_))) | Err(_) => return sockets.close_probe(id),
            }
        }
        if let Some(io) = sockets.io(id).filter(|_| !decoder.is_idle()) {
            io.connection.decoder = Some(decoder);
        }
    }
}

/// Delivers a message of an Engine.IO session. The error ends the session.
fn deliver_packet<A: Application>(
    application: &mut A,
    sockets: &mut Sockets<A::Peer>,
    id: SocketId,
    message: Message<'_>,
) -> Result<(), (Option<u16>, Cause)> {
    let Message::Text(text) = message else {
        application.engine_message(sockets, id, message);
        return Ok(());
    };
    match EnginePacket::parse(text) {
        Ok(EnginePacket::Message(text)) => application.engine_message(sockets, id, Message::Text(text)),
        Ok(EnginePacket::Binary(data)) => application.engine_message(sockets, id, Message::Binary(&data)),
        Ok(EnginePacket::Pong | EnginePacket::Ignored) => {}
        Ok(EnginePacket::Close) => return Err((None, Cause::ClosedByClient)),
        Err(Malformed) => return Err((Some(Violation::Packet.code()), Cause::Violation(Violation::Packet))),
    }
    Ok(())
}

/// Delivers the packets of a POST, at most `MAX_MESSAGES`. If there are more, the session is queued again.
fn deliver_post<A: Application>(application: &mut A, sockets: &mut Sockets<A::Peer>, id: SocketId) {
    let Some(mut socket) = sockets.get_mut(id) else { return };
    let Some(mut post) = socket.connection.transport.polling().and_then(|session| session.post.take()) else { return };
    for _ in 0..MAX_MESSAGES {
        if !socket.is_open() || socket.is_paused() {
            break;
        }
        let rest = &post.body[post.handled..];
        let packet = rest.split(char::from(SEPARATOR)).next().unwrap_or(rest);
        let id = socket.id();
        let delivered = deliver_packet(application, sockets, id, Message::Text(packet));
        post.handled += packet.len() + 1;
        let Some(again) = sockets.socket_at(id.index()) else { return };
        socket = again;
        if let Err((_, cause)) = delivered {
            let malformed = matches!(cause, Cause::Violation(_));
            // The client may be gone.
            let _ = post.answer.send(if malformed { Err(RequestError::BadRequest) } else { Ok(()) });
            let id = socket.id();
            return sockets.end_by_post(id, cause);
        }
        if post.handled > post.body.len() {
            if let Some(session) = socket.connection.transport.polling() {
                session.posting = false;
            }
            let _ = post.answer.send(Ok(()));
            return;
        }
    }
    // If the session has ended, the answer is dropped together with the POST.
    if socket.is_open() {
        let paused = socket.is_paused();
        if let Some(session) = socket.connection.transport.polling() {
            session.post = Some(post);
        }
        if !paused {
            socket.requeue();
        }
    }
}

/// Reads once. Returns how many bytes are to be delivered.
fn receive<P>(sockets: &mut Sockets<P>, id: SocketId, input: &mut [u8]) -> Option<usize> {
    let mut io = sockets.io(id)?;
    let size = match io.connection.transport.read(input) {
        Ok(Some(0)) if io.connection.send_queue.is_some() && !io.is_open() => {
            // The client may still read, so the server's FIN follows when the queue is empty.
            (io.connection.readable, io.connection.finished) = (false, true);
            return None;
        }
        Ok(Some(0)) | Err(_) => {
            let state = io.connection.state;
            io.abort();
            end_of_silent(sockets, id, state);
            return None;
        }
        Ok(Some(size)) => size,
        Ok(None) => {
            io.connection.readable = false;
            return None;
        }
    };
    // A short read has emptied the socket, so the next byte raises a new event. A FIN that has arrived already raises
    // none.
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
        ConnectionState::Probing(_) => return Some(size),
        ConnectionState::Parked(session) => {
            let named = SocketId::from(*session);
            sockets.on_get_followed(id, named);
        }
        ConnectionState::MarkedClosing | ConnectionState::Broken => {}
    }
    None
}

/// Handles the end of a connection without a peer.
fn end_of_silent<P>(sockets: &mut Sockets<P>, id: SocketId, state: ConnectionState) {
    match state {
        ConnectionState::Parked(session) => sockets.on_get_lost(id, session),
        ConnectionState::Probing(_) => sockets.on_probe_lost(id),
        ConnectionState::Open { .. }
        | ConnectionState::MarkedClosing
        | ConnectionState::Broken
        | ConnectionState::Closing { .. } => {}
    }
}
