//! Sends commands to the workers.
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use rollcall_presence::Connections;
use rollcall_schema::{LessonId, SessionError, Sid};
use tokio::{sync::oneshot, time::timeout};

use super::WorkerCommand;
use crate::{
    handler::sids::Sids,
    limits::admission,
    rooms::{RoomCommand, RoomWorkers},
};
use rollcall_websocket::{ReservedConnection, SocketId, Workers};

/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The inboxes of all workers. Mailboxes are cheap to clone. When the process ends, commands are dropped, and nothing
/// depends on them.
#[derive(Clone, Default)]
pub struct Mailboxes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    workers: OnceLock<Workers<WorkerCommand>>,
    sids: Sids,
}

impl Mailboxes {
    /// Gives the mailboxes the workers, once. Handlers are created before the workers that run them, and already need
    /// the mailboxes.
    pub fn open(&self, workers: Workers<WorkerCommand>) {
        assert!(self.0.workers.set(workers).is_ok(), "the workers start once");
    }

    /// Returns the number of workers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers().inboxes().len()
    }

    /// Sends a command to a socket's worker. Waits if the worker's inbox is full.
    pub async fn send(&self, socket: SocketId, command: WorkerCommand) {
        self.to(socket.worker(), command).await;
    }

    /// Sends a command to a worker.
    pub async fn to(&self, worker: usize, command: WorkerCommand) {
        let _ = self.workers().send(worker, command).await;
    }

    /// Sends a command to all workers.
    pub async fn broadcast(&self, command: impl Fn() -> WorkerCommand) {
        for worker in 0..self.len() {
            self.to(worker, command()).await;
        }
    }

    /// Closes a connection. A connection of another node is ignored.
    pub async fn close(&self, sid: Sid, error: SessionError) {
        if let Some(socket) = self.socket(sid) {
            self.send(socket, WorkerCommand::Close { socket, sid, error }).await;
        }
    }

    /// Returns the connections in `sids` that are not open in this process. If a worker does not answer in time, its
    /// connections are left out.
    pub async fn ended(&self, sids: Vec<Sid>) -> Vec<Sid> {
        // Before the workers have started, there are no connections.
        let workers = self.0.workers.get().map_or(0, |workers| workers.inboxes().len());
        let mut by_worker = vec![Vec::new(); workers];
        let mut ended = Vec::new();
        for sid in sids {
            let own = self.socket(sid).and_then(|socket| by_worker.get_mut(socket.worker()));
            own.unwrap_or(&mut ended).push(sid);
        }
        for (worker, sids) in by_worker.into_iter().enumerate().filter(|(_, sids)| !sids.is_empty()) {
            let (answer, answered) = oneshot::channel();
            let asked = async {
                self.to(worker, WorkerCommand::Ended { sids, answer }).await;
                answered.await
            };
            if let Ok(Ok(of_worker)) = timeout(ANSWER_TIMEOUT, asked).await {
                ended.extend(of_worker);
            }
        }
        ended
    }

    /// Returns the sid of a socket, as [`Sids::sid`] does.
    #[must_use]
    pub fn sid(&self, socket: SocketId) -> Sid {
        self.0.sids.sid(socket)
    }

    /// Returns the socket of a sid, as [`Sids::socket`] does.
    #[must_use]
    pub fn socket(&self, sid: Sid) -> Option<SocketId> {
        self.0.sids.socket(sid)
    }

    /// Returns the workers.
    pub(super) fn workers(&self) -> &Workers<WorkerCommand> {
        self.0.workers.get().expect("the workers are started before anything is sent to them")
    }
}

#[async_trait]
impl RoomWorkers for Mailboxes {
    fn count(&self) -> usize {
        self.len()
    }

    async fn send(&self, worker: usize, command: RoomCommand) {
        self.to(worker, WorkerCommand::Room(command)).await;
    }
}

#[async_trait]
impl Connections for Mailboxes {
    async fn close(&self, sid: Sid, error: SessionError) {
        Mailboxes::close(self, sid, error).await;
    }

    async fn leave_lesson(&self, sid: Sid, lesson: LessonId) {
        if let Some(socket) = self.socket(sid) {
            self.send(socket, WorkerCommand::LeaveLesson { socket, lesson }).await;
        }
    }

    async fn ended(&self, sids: Vec<Sid>) -> Vec<Sid> {
        Mailboxes::ended(self, sids).await
    }

    async fn close_all(&self, error: SessionError) {
        self.broadcast(|| WorkerCommand::CloseAll(error)).await;
    }
}

impl admission::Connections for Workers<WorkerCommand> {
    fn count(&self) -> usize {
        self.admitted()
    }

    fn reserve(&self) -> ReservedConnection {
        Workers::reserve(self)
    }

    fn close_silent(&self, socket: SocketId) -> bool {
        self.try_send(socket.worker(), WorkerCommand::CloseSilent(socket)).is_ok()
    }

    fn near_limit(&self) -> bool {
        Workers::near_limit(self)
    }
}
