//! The commands that other tasks send to a worker.
use std::time::Duration;

use rollcall_schema::{LessonId, Offset, RoomId, SessionError, Sid};
use tokio::sync::{mpsc, oneshot};

use super::options::GatewayOptions;
use crate::{
    handler::{
        connected::Connected,
        error::Refused,
        outside::{EnterOutcome, Moved, Visitor},
        session::Session,
    },
    rooms::RoomCommand,
};
use rollcall_bus::Incoming;
use rollcall_store::Remembered;
use rollcall_websocket::SocketId;

/// A command to a worker.
pub enum WorkerCommand {
    /// A command from the rooms: a new member, an event, or the state of the feed.
    Room(RoomCommand),
    /// A part of the events that a resuming connection missed.
    ReplayChunk(ReplayChunk),
    /// The end of the events that a resuming connection missed.
    ReplayEnd(ReplayEnd),
    /// The handler of connect is done.
    Connected {
        /// The connection.
        socket: SocketId,
        /// What the handler returned.
        outcome: Result<Box<Connected>, Refused>,
        /// The pid with which a client of Socket.IO may resume after a break.
        pid: Option<Box<str>>,
    },
    /// The handler of connect is done for a client that connected without a classroom.
    Admitted {
        /// The connection.
        socket: SocketId,
        /// What the handler returned.
        outcome: Result<Box<Visitor>, Refused>,
        /// The pid with which the client may resume after a break.
        pid: Option<Box<str>>,
    },
    /// The handler is done for a client without a classroom that asked for a lesson.
    Entered {
        /// The connection.
        socket: SocketId,
        /// What the handler returned.
        outcome: EnterOutcome,
        /// The ack, in the connection's dialect.
        ack: Option<Vec<u8>>,
    },
    /// The handler is done for a client that connected without a classroom and asked for another lesson, perhaps in
    /// another classroom.
    Moved {
        /// The connection.
        socket: SocketId,
        /// What the handler returned.
        outcome: Moved,
        /// The ack, in the connection's dialect.
        ack: Option<Vec<u8>>,
    },
    /// The handler of an event is done.
    Answered {
        /// The connection.
        socket: SocketId,
        /// The connection's session.
        session: Box<Session>,
        /// The ack, in the connection's dialect.
        ack: Option<Vec<u8>>,
        /// `Some` if a connection that resumes joined a lesson: the offset after which the connection gets the lesson's
        /// events.
        begins: Option<Offset>,
    },
    /// Closes one connection.
    Close {
        /// The connection's socket.
        socket: SocketId,
        /// The connection's sid.
        sid: Sid,
        /// The error that the client is told.
        error: SessionError,
    },
    /// Takes one connection out of this lesson if the connection is in it.
    LeaveLesson {
        /// The connection's socket.
        socket: SocketId,
        /// The lesson.
        lesson: LessonId,
    },
    /// Asks which of these connections of the worker have ended.
    Ended {
        /// The connections.
        sids: Vec<Sid>,
        /// Receives the connections that have ended.
        answer: oneshot::Sender<Vec<Sid>>,
    },
    /// Tells this many more clients that the node drains, and goes on serving them. They connect to another node within
    /// this time.
    AnnounceDrain(usize, Duration),
    /// Closes this many connections in no particular order. Their clients reconnect within this time.
    CloseSome(usize, Duration),
    /// Closes a connection that has not sent connect_request, to admit a new one.
    CloseSilent(SocketId),
    /// Asks for the worker's sessions.
    Enumerate(Enumerate),
    /// Asks which connections the worker does not have.
    FindMissing(FindMissing),
    /// Sets other limits, which apply from the next message on.
    Limits(Box<GatewayOptions>),
    /// Closes every connection.
    CloseAll(SessionError),
}

/// A part of a replay on its way to the worker. If the answer never comes, the connection has ended.
pub struct ReplayChunk {
    /// The connection.
    pub socket: SocketId,
    /// The events.
    pub events: Vec<Incoming>,
    /// Receives the number of bytes that the client has not yet taken.
    pub queued: oneshot::Sender<usize>,
}

/// The rooms that a replay reads next, and the offset after which it reads them. `None` if the connection is live now.
pub type NextPart = Option<(Offset, Vec<RoomId>)>;

/// The end of a replay or of a part of a replay.
pub struct ReplayEnd {
    /// The connection.
    pub socket: SocketId,
    /// Events through this offset were sent.
    pub through: Offset,
    /// The rooms whose events were sent.
    pub rooms: Vec<RoomId>,
    /// Receives the next part of the replay.
    pub next: oneshot::Sender<NextPart>,
}

/// Asks for the sessions of a worker's connections.
pub struct Enumerate {
    /// The slot to begin at.
    pub from: usize,
    /// How many slots to look at.
    pub max: usize,
    /// Receives the sessions whose handlers do not run.
    pub page: oneshot::Sender<Page>,
    /// Receives each of the other sessions when its handler is done. The number of messages is bounded by the number of
    /// handlers that run.
    pub busy: mpsc::UnboundedSender<Remembered>,
}

/// A part of a worker's sessions.
pub struct Page {
    /// The sessions of this part.
    pub sessions: Vec<Remembered>,
    /// The slot where the next part begins.
    pub next: Option<usize>,
}

/// Asks which of these connections a worker does not have.
pub struct FindMissing {
    /// The connections.
    pub sids: Vec<Sid>,
    /// Receives the connections that the worker does not have.
    pub answer: oneshot::Sender<Vec<Sid>>,
}
