//! The calls of the socket layer to the gateway. Each call is passed to the file that handles it.
use std::time::Instant;

use rollcall_schema::{SessionError, TraceParent, header, heartbeat};

use super::{
    Gateway, WorkerCommand,
    peer::{Peer, PeerState},
};
use crate::{
    limits::admission::{ClientPermit, UnauthenticatedPermit},
    rooms::RoomCommand,
};
use rollcall_websocket::{
    Application, Cause, CloseNotice, Framing, Message, Ping, Socket, SocketId, SocketIo, Sockets, Upgrade,
};

impl Application for Gateway {
    type Peer = Peer;
    type Command = WorkerCommand;

    fn opened(&mut self, socket: &mut SocketIo<'_>, mut upgrade: Upgrade) -> Peer {
        let url_parameter = upgrade.query().and_then(|query| self.shared.table.url_parameter_in(query));
        let waiting = upgrade.head.extensions.remove::<UnauthenticatedPermit>();
        if let Some(waiting) = &waiting {
            waiting.arrived(socket.id());
        }
        let permit = upgrade.head.extensions.remove::<ClientPermit>().flatten();
        let mut peer = if socket.framing() == Framing::WebSocket {
            Peer::new(self.connect_deadline(), url_parameter, permit, waiting)
        } else {
            self.opened_socketio(&upgrade, permit, waiting)
        };
        let trace = upgrade.header(header::TRACEPARENT).and_then(TraceParent::parse);
        peer.join_trace(self.options.traces.admit(trace));
        peer
    }

    fn message(&mut self, socket: &mut Socket<'_, Peer>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        // The pong has already shown that the client is there. A pong of the page costs no more than a pong frame, and
        // like a pong frame it is not counted.
        if socket.peer.heartbeat && heartbeat::is_pong(text) {
            return;
        }
        match socket.peer.state {
            PeerState::AwaitingConnect(_) => self.on_connect_request(socket, text),
            PeerState::Open(_) => self.on_request(socket, text),
            PeerState::Connecting(_) | PeerState::Busy => {
                if !socket.peer.push_pending(text, self.options.max_pending) {
                    socket.pause();
                }
            }
            PeerState::Outside(_) | PeerState::Refused(_) => {}
        }
    }

    fn engine_message(&mut self, sockets: &mut Sockets<Peer>, id: SocketId, message: Message<'_>) {
        self.on_socketio_message(sockets, id, message);
    }

    fn command(&mut self, sockets: &mut Sockets<Peer>, command: WorkerCommand) {
        match command {
            WorkerCommand::Room(command) => self.room_command(sockets, command),
            WorkerCommand::ReplayChunk(chunk) => self.on_replay_chunk(sockets, chunk),
            WorkerCommand::ReplayEnd(end) => self.on_replay_end(sockets, end),
            WorkerCommand::Connected { socket, outcome, pid } => {
                self.on_connected(sockets, socket, outcome, pid.as_deref());
            }
            WorkerCommand::Admitted { socket, outcome, pid } => {
                self.on_admitted(sockets, socket, outcome, pid.as_deref());
            }
            WorkerCommand::Entered { socket, outcome, ack } => self.on_entered(sockets, socket, outcome, ack),
            WorkerCommand::Moved { socket, outcome, ack } => self.on_moved(sockets, socket, outcome, ack),
            WorkerCommand::Answered { socket, session, ack, begins } => match sockets.get_mut(socket) {
                Some(mut socket) => {
                    if let Some(ack) = ack {
                        socket.send_text(&ack);
                    }
                    self.session_returned(&mut socket, session, begins);
                }
                None => self.leave_after_close(socket, session),
            },
            WorkerCommand::Close { socket, sid, error } => match sockets.get_mut(socket) {
                Some(mut socket) => self.end(&mut socket, error),
                None if !error.is_recoverable() => self.shared.disconnects.taken_over(sid, error),
                None => {}
            },
            WorkerCommand::LeaveLesson { socket, lesson } => match sockets.get_mut(socket) {
                Some(mut socket) => self.kick_from_lesson(&mut socket, lesson),
                None => self.kick_from_lesson_after_close(socket, lesson),
            },
            WorkerCommand::Ended { sids, answer } => {
                // The caller may have stopped waiting.
                let _ = answer.send(self.ended(sockets, sids));
            }
            WorkerCommand::CloseSilent(id) => {
                if let Some(mut socket) = sockets.get_mut(id).filter(may_make_way) {
                    self.end(&mut socket, SessionError::TooManyRequests);
                    // The client has sent nothing, so there is no unread data whose reset could destroy the close
                    // frame.
                    socket.finish_close();
                }
            }
            WorkerCommand::AnnounceDrain(count, within) => self.announce_drain(sockets, count, within),
            WorkerCommand::CloseSome(count, within) => self.close_some(sockets, count, within),
            WorkerCommand::Enumerate(ask) => self.enumeration.send_page(sockets, ask),
            WorkerCommand::FindMissing(ask) => self.find_missing(sockets, ask),
            WorkerCommand::Limits(options) => self.options.set_limits(&options),
            WorkerCommand::CloseAll(error) => self.end_some(sockets, usize::MAX, error),
        }
    }

    fn flush(&mut self, sockets: &mut Sockets<Peer>) {
        self.connect_further(sockets);
        self.fanout.flush(sockets);
    }

    fn tick(&mut self, sockets: &mut Sockets<Peer>, now: Instant) {
        for id in self.lost_event_closes.due(now) {
            if let Some(mut socket) = sockets.get_mut(id) {
                self.end(&mut socket, SessionError::InternalServerError);
            }
        }
        self.close_expired(sockets, now);
    }

    fn close_notice(&mut self, peer: &Peer, cause: Cause) -> CloseNotice {
        self.notice_for(peer, cause)
    }

    fn ping(&mut self, peer: &mut Peer) -> Ping {
        match peer.state {
            // connect_success is the first frame that a client gets, so no ping may be sent before it.
            PeerState::Connecting(_) => Ping::No,
            PeerState::AwaitingConnect(_) | PeerState::Outside(_) | PeerState::Refused(_) => Ping::No,
            PeerState::Open(_) | PeerState::Busy if peer.heartbeat => {
                let flushed = self.fanout.flushed();
                Ping::Text(heartbeat::ping(peer.has_all_through(flushed)))
            }
            PeerState::Open(_) | PeerState::Busy => Ping::Frame,
        }
    }

    fn closed(&mut self, _sockets: &mut Sockets<Peer>, id: SocketId, peer: Peer, cause: Cause) {
        self.on_closed(id, peer, cause);
    }
}

impl Gateway {
    fn room_command(&mut self, sockets: &mut Sockets<Peer>, command: RoomCommand) {
        match command {
            RoomCommand::AddMember { socket, room } => self.fanout.add_member(sockets, socket, room),
            RoomCommand::Hold(socket) => self.fanout.hold(sockets, socket),
            RoomCommand::Deliver(delivery) => self.fanout.deliver(delivery),
            RoomCommand::Watermark(offset) => self.fanout.set_watermark(offset),
            RoomCommand::Gap(through) => {
                let affected = |socket: &mut Socket<'_, Peer>| {
                    socket.peer.cursor().is_none_or(|cursor| cursor.last < through)
                        && self.fanout.has_room_from_before(socket.peer, through)
                };
                self.lost_event_closes.add(sockets_where(sockets, affected), Instant::now());
            }
            RoomCommand::StreamReset => {
                // Connections that join a room from now on get no event of the old stream.
                self.fanout.flush(sockets);
                self.fanout.stream_reset();
                let affected = |socket: &mut Socket<'_, Peer>| socket.peer.rooms().next().is_some();
                self.lost_event_closes.add(sockets_where(sockets, affected), Instant::now());
            }
        }
    }
}

/// Returns whether nobody has been let in on this connection and no handler runs for it.
fn may_make_way(socket: &Socket<'_, Peer>) -> bool {
    matches!(socket.peer.state, PeerState::AwaitingConnect(_) | PeerState::Refused(_)) && !socket.carries()
}

fn sockets_where(sockets: &mut Sockets<Peer>, holds: impl Fn(&mut Socket<'_, Peer>) -> bool) -> Vec<SocketId> {
    let mut found = Vec::new();
    sockets.each(|socket| {
        if holds(socket) {
            found.push(socket.id());
        }
    });
    found
}
