//! What other tasks say to the workers, and how it gets there.
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use rollcall_presence::Connections;
use rollcall_schema::{Offset, SessionError, Sid};
use tokio::{sync::oneshot, time::timeout};

use super::{
    enumerate::{Enumerate, FindMissing},
    replay::{Chunk, ReplayEnd},
};
use crate::{
    handler::{connected::Connected, error::Refused, sids::Sids, table::Outcome},
    rooms::{RoomHold, delivery::Delivery},
};
use rollcall_websocket::{SocketId, Workers};

/// How long a worker may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// What a worker is told.
pub enum WorkerCommand {
    /// A function leads this connection into a room: it is held at the door until the function is done.
    Enter {
        /// Who.
        socket: SocketId,
        /// Where.
        room: RoomHold,
    },
    /// An event for a room's members.
    Deliver(Arc<Delivery>),
    /// Every event up to here has come.
    Watermark(Offset),
    /// Events up to here may be missing.
    Gap(Offset),
    /// Offsets start again.
    StreamReset,
    /// A piece of what a resuming connection missed.
    Replay(Chunk),
    /// The end of it.
    Replayed(ReplayEnd),
    /// connect is done.
    Connected {
        /// For whom.
        socket: SocketId,
        /// With what.
        outcome: Result<Box<Connected>, Refused>,
    },
    /// An event's function is done.
    Answered {
        /// For whom.
        socket: SocketId,
        /// With what.
        outcome: Outcome,
    },
    /// Ends one connection.
    Close {
        /// Its socket.
        socket: SocketId,
        /// Its name outside.
        sid: Sid,
        /// Why.
        error: SessionError,
    },
    /// Asks which of its connections are no more.
    Ended {
        /// Their names.
        sids: Vec<Sid>,
        /// Those that are gone.
        answer: oneshot::Sender<Vec<Sid>>,
    },
    /// Tells so many more clients that the node drains, and goes on serving them; they enter elsewhere within this.
    AnnounceDrain(usize, Duration),
    /// Closes so many connections, whichever; their clients come back within this.
    CloseSome(usize, Duration),
    /// Ends a connection that has not sent connect_request, for one that may.
    CloseSilent(SocketId),
    /// Tells which sessions there are.
    Enumerate(Enumerate),
    /// Tells which connections there are not.
    FindMissing(FindMissing),
    /// Ends every connection.
    CloseAll(SessionError),
}

/// The inboxes of all workers. Cheap to clone. Messages to a process that ends go nowhere, and nobody misses them.
#[derive(Clone, Default)]
pub struct Mailboxes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    workers: OnceLock<Workers<WorkerCommand>>,
    sids: Sids,
}

impl Mailboxes {
    /// Called once, when the workers are started: functions need the way back before there are workers to run them.
    pub fn open(&self, workers: Workers<WorkerCommand>) {
        assert!(self.0.workers.set(workers).is_ok(), "the workers start once");
    }

    /// How many workers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers().inboxes().len()
    }

    /// Sends to a socket's worker, waiting for room in its inbox.
    pub async fn send(&self, socket: SocketId, command: WorkerCommand) {
        self.to(socket.worker(), command).await;
    }

    /// Sends to a worker.
    pub async fn to(&self, worker: usize, command: WorkerCommand) {
        let _ = self.workers().send(worker, command).await;
    }

    /// Sends to all.
    pub async fn broadcast(&self, command: impl Fn() -> WorkerCommand) {
        for worker in 0..self.len() {
            self.to(worker, command()).await;
        }
    }

    /// Ends a connection that may be any node's: nothing happens where it is not this one's.
    pub async fn close(&self, sid: Sid, error: SessionError) {
        if let Some(socket) = self.socket(sid) {
            self.send(socket, WorkerCommand::Close { socket, sid, error }).await;
        }
    }

    /// Those of these connections of this node that are no more. A worker that does not answer in time says nothing.
    pub async fn ended(&self, sids: Vec<Sid>) -> Vec<Sid> {
        // Before the workers are started, nobody is connected.
        let workers = self.0.workers.get().map_or(0, |workers| workers.inboxes().len());
        let mut of_workers = vec![Vec::new(); workers];
        let mut ended = Vec::new();
        for sid in sids {
            let own = self.socket(sid).and_then(|socket| of_workers.get_mut(socket.worker()));
            own.unwrap_or(&mut ended).push(sid);
        }
        for (worker, own) in of_workers.into_iter().enumerate().filter(|(_, own)| !own.is_empty()) {
            let (answer, answered) = oneshot::channel();
            let asked = async {
                self.to(worker, WorkerCommand::Ended { sids: own, answer }).await;
                answered.await
            };
            if let Ok(Ok(of_worker)) = timeout(ANSWER, asked).await {
                ended.extend(of_worker);
            }
        }
        ended
    }

    /// See [`Sids::sid`].
    #[must_use]
    pub fn sid(&self, socket: SocketId) -> Sid {
        self.0.sids.sid(socket)
    }

    /// See [`Sids::socket`].
    #[must_use]
    pub fn socket(&self, sid: Sid) -> Option<SocketId> {
        self.0.sids.socket(sid)
    }

    fn workers(&self) -> &Workers<WorkerCommand> {
        self.0.workers.get().expect("the workers are started before anything is sent to them")
    }
}

#[async_trait]
impl Connections for Mailboxes {
    async fn close(&self, sid: Sid, error: SessionError) {
        Mailboxes::close(self, sid, error).await;
    }

    async fn ended(&self, sids: Vec<Sid>) -> Vec<Sid> {
        Mailboxes::ended(self, sids).await
    }

    async fn close_all(&self, error: SessionError) {
        self.broadcast(|| WorkerCommand::CloseAll(error)).await;
    }
}
