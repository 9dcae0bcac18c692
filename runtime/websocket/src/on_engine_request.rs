//! The worker's part of Engine.IO's requests: it begins sessions by long-polling, and handles their GETs, POSTs and
//! WebSockets.
use std::io;

use crate::{
    application::{Application, Upgrade},
    connection::ConnectionState,
    engine_request::EngineRequest,
    handoff::Handoff,
    id::SocketId,
    polling_session::{ParkedGet, PollingSession},
    transport::Transport,
    worker::Worker,
};

impl<A: Application> Worker<A> {
    /// Handles a request of long-polling, or a WebSocket for a session.
    pub(crate) fn on_engine_request(&mut self, request: EngineRequest) {
        // A failed answer means that the client is gone.
        match request {
            EngineRequest::Open { upgrade, answer } => {
                let packet = if self.shutting_down { None } else { self.open_polling(upgrade).ok() };
                if packet.is_none() {
                    self.sockets.context.connections.remove();
                }
                let _ = answer.send(packet);
            }
            EngineRequest::PostBegins { named, answer } => drop(answer.send(self.sockets.on_post_begins(named))),
            EngineRequest::Post { named, post } => self.sockets.on_post(named, post),
            EngineRequest::PostFailed { named, broke } => self.sockets.on_post_failed(named, broke),
            EngineRequest::Get { named, handoff, headers, is_followed } => {
                if let Some(id) = self.insert_silent(handoff, ConnectionState::Parked(named.into())) {
                    self.sockets.on_get(named, ParkedGet { id, headers });
                    if is_followed {
                        self.sockets.on_get_followed(id, named);
                    }
                }
            }
            EngineRequest::Probe { named, handoff, unread } => {
                if let Some(id) = self.insert_silent(handoff, ConnectionState::Open { pinged: None }) {
                    self.sockets.on_probe(named, id);
                    self.buffers.deliver(&mut self.application, &mut self.sockets, id, &mut unread.to_vec());
                }
            }
        }
    }

    /// Begins a session by long-polling. Returns the first packet for its client.
    fn open_polling(&mut self, upgrade: Upgrade) -> io::Result<String> {
        let id = self.sockets.insert(|id, _| Ok(Transport::Polling(Box::new(PollingSession::new(id)))))?;
        self.sockets.context.engine.polling_begins();
        if let Some(mut io) = self.sockets.io(id) {
            io.begin_engine();
        }
        self.open(id, upgrade, None);
        Ok(self.sockets.context.engine.open(id, &["websocket"]))
    }

    /// Adds a connection that has no peer.
    fn insert_silent(&mut self, handoff: Handoff, state: ConnectionState) -> Option<SocketId> {
        let inserted = self
            .sockets
            .insert(|id, context| Transport::new(handoff, context.options.send_buffer, &context.registry, id.token()));
        let Ok(id) = inserted else {
            self.sockets.context.connections.remove();
            return None;
        };
        let mut io = self.sockets.io(id)?;
        io.connection.state = state;
        io.connection.readable = true;
        io.requeue();
        Some(id)
    }
}
