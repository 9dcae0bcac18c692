//! The upgrade of a long-polling session: a WebSocket sends a probe, and becomes the session's transport.
//!
//! Invariant: no message is lost or reordered. The WebSocket takes over what no GET has fetched. Its messages after
//! `upgrade` are the session's. A session whose POST is not done is not upgraded.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use rollcall_socketio::engine::{self, RequestError};

use crate::{
    close::Close,
    connection::{ConnectionState, Session},
    framing::Framing,
    id::SocketId,
    polling::refusal,
    polling_session::{ParkedGet, Probe},
    sockets::Sockets,
    transport::Transport,
};

impl<P> Sockets<P> {
    /// Handles a WebSocket that asks for a session. It is closed if the session has one already, or has ended.
    pub(crate) fn on_probe(&mut self, named: SocketId, id: SocketId) {
        let deadline = self.context.now + self.context.options.ticks(self.context.options.engine_upgrade_timeout);
        let taken = self.context.probes.iter().any(|probe| probe.named == named);
        let fits = !taken && self.session(named).is_ok_and(|io| io.is_open());
        let Some(mut io) = self.io(id) else { return };
        if fits {
            io.connection.state = ConnectionState::Probing(named.into());
            self.context.probes.push(Probe { id, named, deadline });
        } else {
            io.start_close(Some(Close::from(1000)), None);
        }
    }

    /// Returns true if a WebSocket may still become the transport of its session.
    pub(crate) fn is_probing(&self, id: SocketId) -> bool {
        self.context.probes.iter().any(|probe| probe.id == id)
    }

    /// Handles the probe of a WebSocket, after which the client may stop polling.
    pub(crate) fn on_probed(&mut self, id: SocketId, session: Session) {
        let Ok(io) = self.session(session.into()) else { return self.close_probe(id) };
        let Some(state) = io.connection.transport.polling() else { return };
        state.probed = true;
        let get = state.get.take();
        if let Some(get) = get {
            self.respond_noop(get);
        }
        let mut frame = Vec::new();
        Framing::EngineWebSocket.encode_packet(engine::PROBE.1, &mut frame);
        self.answer_probe(id, &frame);
    }

    /// Sends a frame on a WebSocket that probes. If its client does not read, the WebSocket is closed.
    pub(crate) fn answer_probe(&mut self, id: SocketId, frame: &[u8]) {
        match self.io(id) {
            Some(io) if io.connection.send_queue.is_some() => self.close_probe(id),
            Some(mut io) => io.transmit(frame, |taken| Bytes::copy_from_slice(&frame[taken..])),
            None => {}
        }
    }

    /// Lets a WebSocket take over. Returns the session's socket, whose input follows. `None` if it is refused.
    pub(crate) fn on_upgrade(&mut self, id: SocketId, session: Session) -> Option<SocketId> {
        let io = self.session(session.into()).ok().filter(|io| io.is_open());
        let fits =
            io.is_some_and(|io| io.connection.transport.polling().is_some_and(|state| state.probed && !state.posting));
        let reads = self.io(id).is_some_and(|io| io.connection.send_queue.is_none());
        if !fits || !reads {
            self.close_probe(id);
            return None;
        }
        self.context.probes.retain(|probe| probe.id != id);
        self.send_carried();
        let probe = self.remove(id.index())?;
        let mut io = self.session(session.into()).ok()?;
        let old = std::mem::replace(&mut io.connection.transport, probe.transport);
        io.context.engine.polling_ends();
        (io.connection.readable, io.connection.finished) = (probe.readable, probe.finished);
        let token = io.id.token();
        if io.connection.transport.reregister(&io.context.registry, token).is_err() {
            io.abort();
            return None;
        }
        let queued = io.connection.send_queue.take().map(|mut queue| queue.take());
        if let Some(frames) = queued.map(|queued| as_frames(&queued)) {
            io.transmit(&frames, |taken| Bytes::copy_from_slice(&frames[taken..]));
        }
        if io.connection.readable {
            io.requeue();
        }
        let socket = io.id;
        self.reframe_load(socket, Framing::EngineWebSocket);
        if let Transport::Polling(old) = old
            && let Some(get) = old.get
        {
            self.respond(get, refusal(RequestError::BadRequest));
        }
        Some(socket)
    }

    /// Closes the WebSockets that have not taken over in time.
    pub(crate) fn close_late_probes(&mut self) {
        let now = self.context.now;
        let late = self.context.probes.iter().filter(|probe| probe.deadline <= now).map(|probe| probe.id);
        late.collect::<Vec<_>>().into_iter().for_each(|id| self.close_probe(id));
    }

    /// Closes the WebSocket that probes for a session that has ended.
    pub(crate) fn close_probes_of(&mut self, named: SocketId) {
        let probe = self.context.probes.iter().find(|probe| probe.named == named).map(|probe| probe.id);
        probe.into_iter().for_each(|id| self.close_probe(id));
    }

    /// Closes a WebSocket that does not take over. Its session goes on polling.
    pub(crate) fn close_probe(&mut self, id: SocketId) {
        self.on_probe_lost(id);
        if let Some(mut io) = self.io(id) {
            io.start_close(Some(Close::from(1000)), None);
        }
    }

    /// Handles the break of a WebSocket that has not taken over.
    pub(crate) fn on_probe_lost(&mut self, id: SocketId) {
        let Some(place) = self.context.probes.iter().position(|probe| probe.id == id) else { return };
        let Probe { named, .. } = self.context.probes.swap_remove(place);
        if let Some(state) = self.session(named).ok().and_then(|io| io.connection.transport.polling()) {
            state.probed = false;
        }
    }

    fn respond_noop(&mut self, get: ParkedGet) {
        self.respond(get, (200, "text/plain; charset=UTF-8", engine::NOOP.into()));
    }
}

/// Returns the packets of a payload, as frames of a WebSocket.
fn as_frames(queued: &[u8]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(queued.len() + 64);
    for packet in engine::payload(queued).split(|byte| *byte == engine::SEPARATOR) {
        match packet.strip_prefix(b"b").map(|data| STANDARD.decode(data)) {
            Some(Ok(data)) => Framing::EngineWebSocket.encode_binary(&data, &mut frames),
            Some(Err(_)) | None => {
                Framing::EngineWebSocket.encode_packet(&String::from_utf8_lossy(packet), &mut frames)
            }
        }
    }
    frames
}
