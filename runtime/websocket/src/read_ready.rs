//! One connection's turn: a scratch full of input off the socket, and what it says delivered.
use super::{
    Application, Cause, Close, Socket, SocketId, SocketIo,
    connection::ConnectionState,
    frame,
    inbound::{Event, Inbound},
    worker::Worker,
};

/// Messages of one connection in one turn.
const QUANTUM: u32 = 256;
/// Bytes of pongs that one turn sends to one client; of more, the latest pong alone.
const PONGS: usize = 4 << 10;

impl<A: Application> Worker<A> {
    /// Reads and delivers; asks for another turn if there is more.
    pub(super) fn turn(&mut self, id: SocketId) {
        let Some(connection) = self.connection(id) else { return };
        if connection.paused && matches!(connection.phase, ConnectionState::Open { .. }) {
            return;
        }
        let held = connection.inbound.as_deref_mut().map(|inbound| std::mem::take(&mut inbound.held));
        if let Some(mut held) = held.filter(|held| !held.is_empty()) {
            self.deliver(id, &mut held);
            if let Some(mut io) = self.sockets.io(id).filter(|io| io.connection.readable) {
                io.requeue();
            }
            return;
        }
        if !connection.readable {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.receive(id, &mut scratch);
        self.scratch = scratch;
    }

    fn receive(&mut self, id: SocketId, scratch: &mut [u8]) {
        let Some(mut io) = self.sockets.io(id) else { return };
        let size = match io.connection.transport.read(scratch) {
            Ok(Some(0)) if io.connection.outbound.is_some() && !io.is_open() => {
                // It may well read on: its FIN is met with ours when the queue has left.
                (io.connection.readable, io.connection.finished) = (false, true);
                return;
            }
            Ok(Some(0)) | Err(_) => return io.give_up(),
            Ok(Some(size)) => size,
            Ok(None) => {
                io.connection.readable = false;
                return;
            }
        };
        // A short read has emptied the socket: the next byte makes a new edge. Only a FIN that is here already makes none.
        if size == scratch.len() || io.connection.finished || !io.connection.transport.short_read_is_last() {
            io.requeue();
        } else {
            io.connection.readable = false;
        }
        match &mut io.connection.phase {
            ConnectionState::Open { pinged } => {
                *pinged = None;
                self.deliver(id, &mut scratch[..size]);
            }
            ConnectionState::Closing { drained, .. } => {
                *drained = drained.saturating_add(size as u32);
                if *drained as usize > io.shared.options.max_drain {
                    io.give_up();
                }
            }
            ConnectionState::Condemned | ConnectionState::Broken => {}
        }
    }

    /// Delivers what `input` says until it is used up, the quantum is, or the application wants no more.
    pub(super) fn deliver(&mut self, id: SocketId, mut input: &mut [u8]) {
        let Self { application, sockets, pongs, .. } = self;
        let Some(entry) = sockets.slab.get_mut(id.slot()) else { return };
        let Some(peer) = &mut entry.peer else { return };
        // Out of the entry while the application has the entry in its hands.
        let mut kept = entry.connection.inbound.take();
        let mut fresh = Inbound::default();
        let inbound = kept.as_deref_mut().unwrap_or(&mut fresh);
        let io = SocketIo { connection: &mut entry.connection, shared: &mut sockets.shared, id };
        let mut socket = Socket { peer, io };
        pongs.clear();
        let mut latest = 0;
        let mut messages = 0;
        let options = socket.io.shared.options.clone();
        let ended = loop {
            if !socket.is_open() || socket.connection.paused || messages == QUANTUM {
                break None;
            }
            match inbound.next(&mut input, &options) {
                Ok(Some(Event::Message(message))) => {
                    messages += 1;
                    // In the order of what they answer.
                    socket.pong(pongs, latest);
                    pongs.clear();
                    application.message(&mut socket, message);
                }
                Ok(Some(Event::Ping(payload))) => {
                    if pongs.len() > PONGS {
                        pongs.clear();
                    }
                    latest = pongs.len();
                    frame::encode_pong(payload, pongs);
                }
                Ok(Some(Event::Pong)) => {}
                Ok(Some(Event::Close(code))) => break Some((code, Cause::Closed)),
                Ok(None) => break None,
                Err(violation) => break Some((Some(violation.code()), Cause::Violation(violation))),
            }
        };
        socket.pong(pongs, latest);
        if !socket.is_open() {
            return;
        }
        if let Some((code, cause)) = ended {
            socket.hang_up(code.map(Close::from), None);
            socket.shared.ended.push((id, cause));
            return;
        }
        if !input.is_empty() {
            inbound.held = input.to_vec();
            if !socket.connection.paused {
                socket.requeue();
            }
        }
        if !inbound.is_idle() {
            socket.connection.inbound = Some(kept.unwrap_or_else(|| Box::new(fresh)));
        }
    }
}
