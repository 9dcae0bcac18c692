//! Long-polling: GETs wait for packets, and POSTs bring packets.
//!
//! Invariant: a session has at most one GET and one POST at a time, and a second one ends it. The waiting GET costs
//! only a slab entry without a peer. Messages wait in the session's send queue, under its limits.
use bytes::Bytes;
use rollcall_socketio::engine::{self, RequestError};

use crate::{
    close::{Cause, Violation},
    connection::{ConnectionState, Session},
    framing::Framing,
    id::SocketId,
    polling_session::{ParkedGet, PollingSession, Post},
    socket_io::SocketIo,
    sockets::Sockets,
};

impl SocketIo<'_> {
    /// Records that something waits for the next GET, or for the connection's carrier.
    pub(crate) fn note_payload(&mut self) {
        if self.is_carried() {
            self.context.carried_sends.push(self.id);
        } else if self.is_polling() && self.context.payloads.last() != Some(&self.id) {
            self.context.payloads.push(self.id);
        }
    }

    /// Ends a long-polling session. Its client can still fetch what waits, until the flush timeout.
    pub(crate) fn start_polling_close(&mut self, last: Option<&[u8]>) {
        if let Some(text) = last {
            let mut packet = Vec::new();
            Framing::Polling.encode_text(text, &mut packet);
            self.send_queue().push(Bytes::from(packet));
        }
        let deadline = self.context.now + self.context.options.ticks(self.context.options.flush_timeout);
        let waits = self.connection.send_queue.is_some();
        self.connection.state =
            if waits { ConnectionState::Closing { deadline, drained: 0 } } else { ConnectionState::Broken };
        self.note_payload();
    }

    /// Returns whether the session's packets are sent by long-polling.
    pub(crate) fn is_polling(&self) -> bool {
        self.framing() == Framing::Polling
    }

    /// Ends a session at once.
    pub(crate) fn break_off(&mut self, cause: Cause) {
        self.connection.state = ConnectionState::Broken;
        self.context.ended.push((self.id, cause));
    }

    fn park(&mut self, get: ParkedGet) {
        if let Some(session) = self.connection.transport.polling() {
            session.get = Some(get);
        }
    }

    /// Records that the client is alive.
    fn heard(&mut self) {
        if let ConnectionState::Open { pinged } = &mut self.connection.state {
            *pinged = None;
        }
    }

    /// Sends a complete response, and then the server's FIN.
    pub(crate) fn respond(&mut self, response: String) {
        let deadline = self.context.now + self.context.options.ticks(self.context.options.flush_timeout);
        self.send_queue().push(Bytes::from(response));
        self.connection.state = ConnectionState::Closing { deadline, drained: 0 };
        self.flush();
    }
}

impl<P> Sockets<P> {
    /// Returns the long-polling session that an id names.
    ///
    /// # Errors
    /// Returns an error if there is no such session, or the session has moved to a WebSocket.
    pub(crate) fn session(&mut self, named: SocketId) -> Result<SocketIo<'_>, RequestError> {
        let entry = self.slab.get_mut(named.index()).ok_or(RequestError::UnknownSession)?;
        let generation = entry.connection.generation;
        match entry.connection.transport.polling() {
            Some(session) if session.named == named => {
                let id = SocketId::new(self.context.worker, named.index(), generation);
                Ok(SocketIo { connection: &mut entry.connection, context: &mut self.context, id })
            }
            None if generation == named.generation() && entry.peer.is_some() => Err(RequestError::BadRequest),
            Some(_) | None => Err(RequestError::UnknownSession),
        }
    }

    /// Handles a GET of a session, which is the connection `get`: it is answered, or waits.
    pub(crate) fn on_get(&mut self, named: SocketId, get: ParkedGet) {
        let mut io = match self.session(named) {
            Ok(io) => io,
            Err(error) => return self.respond(get, refusal(error)),
        };
        io.heard();
        let closing = !io.is_open();
        let Some(session) = io.connection.transport.polling() else { return };
        if let Some(first) = session.get.take() {
            io.break_off(Cause::Violation(Violation::Overlap));
            self.respond(first, (200, TEXT, engine::CLOSE.into()));
            self.respond(get, refusal(RequestError::BadRequest));
        } else if session.probed && io.connection.send_queue.is_none() {
            self.respond(get, (200, TEXT, engine::NOOP.into()));
        } else if closing && io.connection.send_queue.is_none() {
            self.respond(get, refusal(RequestError::UnknownSession));
        } else {
            session.get = Some(get);
            io.note_payload();
        }
    }

    /// Answers the GETs of the sessions that have packets.
    pub(crate) fn answer_gets(&mut self) {
        for id in std::mem::take(&mut self.context.payloads) {
            let Some(mut io) = self.io(id) else { continue };
            let Some(get) = io.connection.transport.polling().and_then(|session| session.get.take()) else { continue };
            let Some(mut queue) = io.connection.send_queue.take() else {
                io.park(get);
                continue;
            };
            if matches!(io.connection.state, ConnectionState::Closing { .. }) {
                io.break_off(Cause::ClosedByServer);
            }
            let packets = String::from_utf8_lossy(engine::payload(&queue.take())).into_owned();
            self.respond(get, (200, TEXT, packets));
        }
    }

    /// Handles the beginning of a POST.
    ///
    /// # Errors
    /// Returns a [`RequestError`] if the POST is refused. If another POST of the session is not done, the session ends.
    pub(crate) fn on_post_begins(&mut self, named: SocketId) -> Result<(), RequestError> {
        let mut io = self.session(named)?;
        if !io.is_open() {
            return Err(RequestError::UnknownSession);
        }
        io.heard();
        let Some(session) = io.connection.transport.polling() else { return Err(RequestError::BadRequest) };
        if std::mem::replace(&mut session.posting, true) {
            let get = session.get.take();
            io.break_off(Cause::Violation(Violation::Overlap));
            get.into_iter().for_each(|get| self.respond(get, (200, TEXT, engine::CLOSE.into())));
            return Err(RequestError::BadRequest);
        }
        Ok(())
    }

    /// Handles the body of a POST.
    pub(crate) fn on_post(&mut self, named: SocketId, post: Post) {
        match self.session(named) {
            Ok(mut io) if io.is_open() => {
                if let Some(session) = io.connection.transport.polling() {
                    session.post = Some(post);
                }
                io.requeue();
                return;
            }
            Ok(_) | Err(_) => {}
        }
        // The client may be gone.
        let _ = post.answer.send(Err(RequestError::UnknownSession));
    }

    /// Ends a session because of a POST: with a `close` packet, or with an invalid packet. After a `close` packet, a
    /// GET that was sent before it, and may arrive after it, still gets its answer.
    pub(crate) fn end_by_post(&mut self, id: SocketId, cause: Cause) {
        let Some(mut io) = self.io(id) else { return };
        let get = io.connection.transport.polling().and_then(|session| session.get.take());
        io.connection.send_queue = None;
        match get {
            Some(get) => {
                io.break_off(cause);
                self.respond(get, (200, TEXT, engine::NOOP.into()));
            }
            None if cause == Cause::ClosedByClient => {
                io.send_packet(engine::NOOP);
                io.start_polling_close(None);
                io.context.ended.push((id, cause));
            }
            None => io.break_off(cause),
        }
    }

    /// Handles a POST that ended without its body. If its connection broke, the session ends.
    pub(crate) fn on_post_failed(&mut self, named: SocketId, broke: bool) {
        let Ok(mut io) = self.session(named) else { return };
        if broke && io.is_open() {
            return io.abort();
        }
        if let Some(session) = io.connection.transport.polling() {
            session.posting = false;
        }
    }

    /// Ends a session because the client of its GET is gone.
    pub(crate) fn on_get_lost(&mut self, id: SocketId, session: Session) {
        let Ok(mut io) = self.session(session.into()) else { return };
        let waits = io.connection.transport.polling().and_then(|session| session.get.as_ref());
        if waits.is_some_and(|get| get.id == id) && io.is_open() {
            io.abort();
        }
    }

    /// Answers a waiting GET because the next request has come on the GET's connection, and would wait, too. The
    /// connection is closed, so that the client sends that request again on another connection (RFC 9112, 9.3.2).
    pub(crate) fn on_get_followed(&mut self, id: SocketId, named: SocketId) {
        let Ok(io) = self.session(named) else { return };
        let Some(session) = io.connection.transport.polling() else { return };
        if let Some(get) = session.get.take_if(|get| get.id == id) {
            self.respond(get, (200, TEXT, engine::NOOP.into()));
        }
    }

    /// Answers the requests that wait for a long-polling session that has ended.
    pub(crate) fn release(&mut self, session: PollingSession) {
        self.context.engine.polling_ends();
        if let Some(get) = session.get {
            self.respond(get, refusal(RequestError::UnknownSession));
        }
        self.close_probes_of(session.named);
    }

    /// Answers a waiting GET.
    pub(crate) fn respond(&mut self, get: ParkedGet, (status, kind, body): Answer) {
        let Some(mut io) = self.io(get.id) else { return };
        let reason = if status == 200 { "OK" } else { "Bad Request" };
        io.respond(format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Connection: close\r\n{}\r\n{body}",
            body.len(),
            get.headers
        ));
    }
}

/// The status, the content type and the body.
type Answer = (u16, &'static str, String);

const TEXT: &str = "text/plain; charset=UTF-8";

pub(crate) fn refusal(error: RequestError) -> Answer {
    (error.status(), "application/json", error.body())
}
