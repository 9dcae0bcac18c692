//! The handle to all workers, through which they get connections and commands.
use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, mpsc, mpsc::error::TrySendError, oneshot},
    task::JoinSet,
};

use crate::{
    application::{Application, Upgrade},
    connection_count::{ConnectionCount, ReservedConnection, WorkerCount},
    engine::Engine,
    engine_request::EngineRequest,
    handoff::Handoff,
    id::SocketId,
    options::SocketOptions,
    send_budget::{self, SendBudget},
    worker::{Adoption, Input, Worker},
};
use rollcall_base::tasks::Tasks;

/// The error for a worker whose task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker has stopped")]
pub struct Stopped;

/// Sends to one worker.
#[derive(Debug)]
pub struct Inbox<C> {
    worker: u8,
    sender: mpsc::Sender<Input<C>>,
    connections: Arc<WorkerCount>,
}

impl<C> Clone for Inbox<C> {
    fn clone(&self) -> Self {
        Self { worker: self.worker, sender: self.sender.clone(), connections: Arc::clone(&self.connections) }
    }
}

impl<C: Send + 'static> Inbox<C> {
    /// Returns the number of the worker, from 0. [`SocketId::worker`] of its sockets returns the same number.
    #[must_use]
    pub fn worker(&self) -> usize {
        usize::from(self.worker)
    }

    /// Sends a command, and waits while the inbox is full.
    pub async fn send(&self, command: C) -> Result<(), Stopped> {
        self.sender.send(Input::Command(command)).await.map_err(|_| Stopped)
    }

    /// Sends a command. Returns the command if the inbox is full or the worker has stopped.
    pub fn try_send(&self, command: C) -> Result<(), C> {
        self.sender.try_send(Input::Command(command)).map_err(|error| match error {
            TrySendError::Full(Input::Command(command)) | TrySendError::Closed(Input::Command(command)) => command,
            TrySendError::Full(_) | TrySendError::Closed(_) => unreachable!("only a command was sent"),
        })
    }

    /// Returns the connections that the worker has or is about to get.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.get()
    }
}

/// The handle to all workers. It is cheap to clone.
#[derive(Debug)]
pub struct Workers<C> {
    inboxes: Arc<[Inbox<C>]>,
    count: ConnectionCount,
    send_budgets: Arc<[Arc<SendBudget>]>,
    engine: Arc<Engine>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl<C> Clone for Workers<C> {
    fn clone(&self) -> Self {
        Self {
            inboxes: Arc::clone(&self.inboxes),
            count: self.count.clone(),
            send_budgets: Arc::clone(&self.send_budgets),
            engine: Arc::clone(&self.engine),
            tasks: Arc::clone(&self.tasks),
        }
    }
}

impl<C: Send + 'static> Workers<C> {
    /// Starts `count` workers (at least one), each with an application of its own. The ids of Engine.IO's sessions
    /// begin with `label`. The application gets its worker's inbox, so that tasks that it spawns can reply.
    pub fn start<A: Application<Command = C>>(
        supervisor: &Tasks,
        count: usize,
        options: &SocketOptions,
        label: &str,
        mut application: impl FnMut(Inbox<C>) -> A,
    ) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        let mut inboxes = Vec::new();
        let connections = ConnectionCount::default();
        let engine = Arc::new(Engine::new(label, options));
        let count = count.clamp(1, SocketId::MAX_WORKERS);
        let send_budgets: Arc<[_]> =
            (0..count).map(|_| Arc::new(SendBudget::new(options.send_budget / count))).collect();
        for (worker, send_budget) in send_budgets.iter().enumerate() {
            let (sender, receiver) = mpsc::channel(options.inbox);
            let worker = u8::try_from(worker).expect("clamped to what a u8 holds");
            let inbox = Inbox { worker, sender, connections: Arc::new(WorkerCount::new(&connections)) };
            let application = application(inbox.clone());
            let (connections, send_budget) = (Arc::clone(&inbox.connections), Arc::clone(send_budget));
            let worker =
                Worker::new(worker, options.clone(), application, connections, send_budget, Arc::clone(&engine))?;
            tasks.spawn(supervisor.supervise("worker", worker.run(receiver)));
            inboxes.push(inbox);
        }
        Ok(Self {
            inboxes: inboxes.into(),
            count: connections,
            send_budgets,
            engine,
            tasks: Arc::new(Mutex::new(tasks)),
        })
    }

    /// Returns the workers' inboxes, by number.
    #[must_use]
    pub fn inboxes(&self) -> &[Inbox<C>] {
        &self.inboxes
    }

    /// Sets for all connections the limits that may change while a connection is open. The other options stay
    /// unchanged.
    pub async fn set_limits(&self, options: &SocketOptions) {
        self.engine.set_max_payload(options.max_message);
        for inbox in self.inboxes.iter() {
            // A worker that has ended has no connections.
            let _ = inbox.sender.send(Input::Limits(Box::new(options.clone()))).await;
        }
    }

    /// Returns the number of connections of all workers.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inboxes.iter().map(Inbox::connections).sum()
    }

    /// Returns the number of connections of all workers, and of those that were reserved.
    #[must_use]
    pub fn admitted(&self) -> usize {
        self.count.get()
    }

    /// Counts a connection that is about to upgrade. The value belongs in the extensions of its head.
    #[must_use]
    pub fn reserve(&self) -> ReservedConnection {
        self.count.reserve()
    }

    /// Returns whether the bytes that wait for slow readers are near their limit, so that new connections should be
    /// refused.
    #[must_use]
    pub fn near_limit(&self) -> bool {
        send_budget::near_limit(self.send_budgets.iter().map(|worker| &**worker))
    }

    /// Sends a command to one worker, and waits while the worker's inbox is full.
    pub async fn send(&self, worker: usize, command: C) -> Result<(), Stopped> {
        self.inboxes.get(worker).ok_or(Stopped)?.send(command).await
    }

    /// Sends a command to one worker. Returns the command if the inbox is full or the worker has stopped.
    pub fn try_send(&self, worker: usize, command: C) -> Result<(), C> {
        match self.inboxes.get(worker) {
            Some(inbox) => inbox.try_send(command),
            None => Err(command),
        }
    }

    /// Gives an upgraded, non-blocking connection, and the bytes that it has sent already, to the worker with the
    /// fewest connections.
    pub async fn adopt(&self, handoff: impl Into<Handoff>, unread: Bytes, mut upgrade: Upgrade) -> Result<(), Stopped> {
        let reserved = upgrade.head.extensions.remove();
        let adoption = Adoption { handoff: handoff.into(), unread, upgrade, is_engine: false };
        self.add(self.with_fewest()?, Input::Adopt(Box::new(adoption)), reserved).await
    }

    /// Gives a WebSocket that begins an Engine.IO session to the worker with the fewest connections.
    pub(crate) async fn adopt_engine(
        &self,
        handoff: Handoff,
        unread: Bytes,
        mut upgrade: Upgrade,
    ) -> Result<(), Stopped> {
        let reserved = upgrade.head.extensions.remove();
        let adoption = Adoption { handoff, unread, upgrade, is_engine: true };
        self.add(self.with_fewest()?, Input::Adopt(Box::new(adoption)), reserved).await
    }

    /// Begins an Engine.IO session by long-polling. Returns its first packet. `None` if there is no room.
    pub(crate) async fn open_polling(&self, mut upgrade: Upgrade) -> Option<String> {
        let (answer, answered) = oneshot::channel();
        let reserved = upgrade.head.extensions.remove();
        let request = Input::Engine(Box::new(EngineRequest::Open { upgrade, answer }));
        self.add(self.with_fewest().ok()?, request, reserved).await.ok()?;
        answered.await.ok()?
    }

    /// Gives a connection to an Engine.IO session: a waiting GET, or a WebSocket that is to become its transport.
    pub(crate) async fn add_to_session(&self, named: SocketId, request: EngineRequest) -> Result<(), Stopped> {
        self.add(self.inboxes.get(named.worker()).ok_or(Stopped)?, Input::Engine(Box::new(request)), None).await
    }

    /// Sends a request to the worker of an Engine.IO session.
    pub(crate) async fn ask_session(&self, named: SocketId, request: EngineRequest) -> Result<(), Stopped> {
        let inbox = self.inboxes.get(named.worker()).ok_or(Stopped)?;
        inbox.sender.send(Input::Engine(Box::new(request))).await.map_err(|_| Stopped)
    }

    /// Sends a request to the worker of a session without waiting. If the inbox is full, the request is dropped.
    pub(crate) fn tell_session(&self, named: SocketId, request: EngineRequest) {
        if let Some(inbox) = self.inboxes.get(named.worker()) {
            let _ = inbox.sender.try_send(Input::Engine(Box::new(request)));
        }
    }

    /// Returns the part of Engine.IO that all workers share.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn with_fewest(&self) -> Result<&Inbox<C>, Stopped> {
        self.inboxes.iter().min_by_key(|inbox| inbox.connections()).ok_or(Stopped)
    }

    /// Sends a connection to a worker. The connection counts from now on.
    async fn add(
        &self,
        inbox: &Inbox<C>,
        input: Input<C>,
        reserved: Option<ReservedConnection>,
    ) -> Result<(), Stopped> {
        inbox.connections.add(reserved);
        inbox.sender.send(input).await.map_err(|_| {
            inbox.connections.remove();
            Stopped
        })
    }

    /// Closes every connection with the application's notice for [`crate::Cause::ClosedByServer`], and waits until all
    /// are gone, for at most the flush and close timeouts.
    pub async fn shutdown(&self) {
        for inbox in self.inboxes.iter() {
            // A worker that has ended already has nothing to close.
            let _ = inbox.sender.send(Input::Shutdown).await;
        }
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}
