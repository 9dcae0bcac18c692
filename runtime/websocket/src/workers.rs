//! The handle to all workers: how connections and commands get to them.
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, mpsc, mpsc::error::TrySendError},
    task::JoinSet,
};

use super::{
    Application, SocketId, SocketOptions, Upgrade, maybe_tls_stream::Handoff, send_budget, send_budget::SendBudget,
    worker::Worker,
};
use rollcall_base::tasks::Tasks;

/// What arrives in a worker's inbox.
#[derive(Debug)]
pub(super) enum Input<C> {
    /// A client that has upgraded, and what it sent right behind its request.
    Adopt(Box<Adoption>),
    /// For the application.
    Command(C),
    /// Close every connection, then end.
    Shutdown,
}

/// A connection on its way from the listener to a worker.
#[derive(Debug)]
pub(super) struct Adoption {
    pub(super) carrier: Handoff,
    pub(super) unread: Bytes,
    pub(super) upgrade: Upgrade,
}

/// The worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker has stopped")]
pub struct Stopped;

/// The way into one worker.
#[derive(Debug)]
pub struct Inbox<C> {
    worker: u8,
    sender: mpsc::Sender<Input<C>>,
    connections: Arc<AtomicUsize>,
}

impl<C> Clone for Inbox<C> {
    fn clone(&self) -> Self {
        Self { worker: self.worker, sender: self.sender.clone(), connections: Arc::clone(&self.connections) }
    }
}

impl<C: Send + 'static> Inbox<C> {
    /// The worker's number, from 0: [`SocketId::worker`] of its sockets.
    #[must_use]
    pub fn worker(&self) -> usize {
        usize::from(self.worker)
    }

    /// Sends a command, waiting for room.
    pub async fn send(&self, command: C) -> Result<(), Stopped> {
        self.sender.send(Input::Command(command)).await.map_err(|_| Stopped)
    }

    /// Sends a command if there is room; gives it back if not, or if the worker has stopped.
    pub fn try_send(&self, command: C) -> Result<(), C> {
        self.sender.try_send(Input::Command(command)).map_err(|error| match error {
            TrySendError::Full(Input::Command(command)) | TrySendError::Closed(Input::Command(command)) => command,
            TrySendError::Full(_) | TrySendError::Closed(_) => unreachable!("only a command was sent"),
        })
    }

    /// Connections that the worker has or is about to get.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The handle to all workers; a clone is cheap.
#[derive(Debug)]
pub struct Workers<C> {
    inboxes: Arc<[Inbox<C>]>,
    in_flight: Arc<[Arc<SendBudget>]>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl<C> Clone for Workers<C> {
    fn clone(&self) -> Self {
        Self {
            inboxes: Arc::clone(&self.inboxes),
            in_flight: Arc::clone(&self.in_flight),
            tasks: Arc::clone(&self.tasks),
        }
    }
}

impl<C: Send + 'static> Workers<C> {
    /// Starts `count` workers (at least one), each with an application of its own, which may keep the inbox it is
    /// given for what it spawns.
    pub fn start<A: Application<Command = C>>(
        supervisor: &Tasks,
        count: usize,
        options: &SocketOptions,
        mut application: impl FnMut(Inbox<C>) -> A,
    ) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        let mut inboxes = Vec::new();
        let count = count.clamp(1, SocketId::WORKERS);
        let in_flight: Arc<[_]> =
            (0..count).map(|_| Arc::new(SendBudget::new(options.max_in_flight / count))).collect();
        for (worker, in_flight) in in_flight.iter().enumerate() {
            let (sender, receiver) = mpsc::channel(options.inbox);
            let worker = u8::try_from(worker).expect("clamped to what a u8 holds");
            let inbox = Inbox { worker, sender, connections: Arc::default() };
            let application = application(inbox.clone());
            let counts = (Arc::clone(&inbox.connections), Arc::clone(in_flight));
            let worker = Worker::new(worker, options.clone(), application, counts)?;
            tasks.spawn(supervisor.supervise("worker", worker.run(receiver)));
            inboxes.push(inbox);
        }
        Ok(Self { inboxes: inboxes.into(), in_flight, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// The workers' inboxes, by number.
    #[must_use]
    pub fn inboxes(&self) -> &[Inbox<C>] {
        &self.inboxes
    }

    /// Connections of all workers.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inboxes.iter().map(Inbox::connections).sum()
    }

    /// Whether so much waits for slow readers that new connections had better come later.
    #[must_use]
    pub fn crowded(&self) -> bool {
        send_budget::crowd(self.in_flight.iter().map(|worker| &**worker))
    }

    /// Sends a command to one worker, waiting for room.
    pub async fn send(&self, worker: usize, command: C) -> Result<(), Stopped> {
        self.inboxes.get(worker).ok_or(Stopped)?.send(command).await
    }

    /// Sends a command to one worker if there is room.
    pub fn try_send(&self, worker: usize, command: C) -> Result<(), C> {
        match self.inboxes.get(worker) {
            Some(inbox) => inbox.try_send(command),
            None => Err(command),
        }
    }

    /// Gives an upgraded connection (non-blocking), and what it sent already, to the worker with the fewest.
    pub async fn adopt(&self, carrier: impl Into<Handoff>, unread: Bytes, upgrade: Upgrade) -> Result<(), Stopped> {
        let inbox = self.inboxes.iter().min_by_key(|inbox| inbox.connections()).ok_or(Stopped)?;
        inbox.connections.fetch_add(1, Ordering::Relaxed);
        let adoption = Input::Adopt(Box::new(Adoption { carrier: carrier.into(), unread, upgrade }));
        inbox.sender.send(adoption).await.map_err(|_| {
            inbox.connections.fetch_sub(1, Ordering::Relaxed);
            Stopped
        })
    }

    /// Closes every connection with the application's farewell for [`super::Cause::Ours`] and waits until all are
    /// gone, at most the flush and close timeouts.
    pub async fn shutdown(&self) {
        for inbox in self.inboxes.iter() {
            // A worker that is gone already has nothing to close.
            let _ = inbox.sender.send(Input::Shutdown).await;
        }
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}
