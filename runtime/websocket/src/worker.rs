//! The loop: one task that owns its connections, waits for its epoll, its inbox and its clock, and calls the
//! application.
//!
//! Invariant: a turn gives each connection at most one scratch full of input and `QUANTUM` messages, so nobody's
//! flood delays the others by more; what is left over waits in `ready`.
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Gauge;
use mio::Poll;
use slab::Slab;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Application, Cause, SocketId, SocketIo, SocketOptions, Sockets,
    connection::{Connection, ConnectionState, WorkerContext},
    send_budget::SendBudget,
    sockets::Entry,
    transport::Transport,
    workers::{Adoption, Input},
};
use rollcall_base::names;

/// The one read buffer of a worker.
const SCRATCH: usize = 64 << 10;
/// Commands in one turn, events of the epoll in one turn.
const BATCH: usize = 1024;

/// A worker before and while it runs.
#[derive(Debug)]
pub(super) struct Worker<A: Application> {
    pub(super) application: A,
    pub(super) sockets: Sockets<A::Peer>,
    epoll: AsyncFd<Poll>,
    events: mio::Events,
    pub(super) scratch: Box<[u8]>,
    pub(super) pongs: Vec<u8>,
    generation: u32,
    /// Connections that this worker has or is about to get; the listener reads it.
    connections: Arc<AtomicUsize>,
    gauge: Gauge,
    ending: bool,
}

impl<A: Application> Worker<A> {
    pub(super) fn new(
        worker: u8,
        options: SocketOptions,
        application: A,
        (connections, in_flight): (Arc<AtomicUsize>, Arc<SendBudget>),
    ) -> io::Result<Self> {
        #[expect(deprecated, reason = "its successor is unsafe, for values whose fd could change; Poll owns its own")]
        let epoll = AsyncFd::with_interest(Poll::new()?, tokio::io::Interest::READABLE)?;
        let shared = WorkerContext {
            worker,
            options,
            encoded: Vec::new(),
            now: 1,
            in_flight,
            ended: Vec::new(),
            ready: VecDeque::new(),
        };
        Ok(Self {
            application,
            sockets: Sockets { slab: Slab::new(), shared, open: 0 },
            epoll,
            events: mio::Events::with_capacity(BATCH),
            scratch: vec![0; SCRATCH].into(),
            pongs: Vec::new(),
            generation: 0,
            connections,
            gauge: metrics::gauge!(names::CONNECTIONS),
            ending: false,
        })
    }

    /// Runs until a shutdown has closed the last connection, or nobody is left to send commands.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Input<A::Command>>) {
        let mut clock = interval(self.sockets.shared.options.tick);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        let mut deaf = false;
        while !(self.ending && self.sockets.slab.is_empty()) {
            let unfinished = !self.sockets.shared.ready.is_empty();
            tokio::select! {
                received = inbox.recv_many(&mut batch, BATCH), if !deaf => {
                    if received == 0 {
                        deaf = true;
                        self.end();
                    }
                    for input in batch.drain(..) {
                        self.input(input);
                        // A connection that it ended is over before anything more is heard of it.
                        self.settle();
                    }
                }
                polled = poll(&mut self.epoll, &mut self.events) => match polled {
                    Ok(()) => self.socket_events(),
                    Err(error) => tracing::error!(%error, "epoll"),
                },
                _ = clock.tick() => {
                    self.sweep();
                    self.application.tick(&mut self.sockets, Instant::now());
                }
                // Not at once: other tasks, and the events above, have their turn between two of ours.
                () = tokio::task::yield_now(), if unfinished => {}
            }
            for _ in 0..self.sockets.shared.ready.len() {
                let Some(id) = self.sockets.shared.ready.pop_front() else { break };
                if let Some(connection) = self.connection(id) {
                    connection.queued = false;
                    self.turn(id);
                }
            }
            self.settle();
            self.application.flush(&mut self.sockets);
            self.shed();
            self.settle();
        }
    }
}

/// Waits for the epoll and takes its events.
async fn poll(epoll: &mut AsyncFd<Poll>, events: &mut mio::Events) -> io::Result<()> {
    let mut guard = epoll.readable_mut().await?;
    guard.get_inner_mut().poll(events, Some(Duration::ZERO))?;
    // A full batch may have left some behind, for which no new edge comes.
    if events.iter().count() < BATCH {
        guard.clear_ready();
    }
    Ok(())
}

impl<A: Application> Worker<A> {
    fn input(&mut self, input: Input<A::Command>) {
        match input {
            Input::Command(command) => self.application.command(&mut self.sockets, command),
            Input::Adopt(adoption) => {
                if self.ending || self.adopt(*adoption).is_err() {
                    self.connections.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Input::Shutdown => self.end(),
        }
    }

    fn adopt(&mut self, adoption: Adoption) -> io::Result<()> {
        let Sockets { slab, shared, open } = &mut self.sockets;
        if slab.len() == SocketId::SLOTS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.generation = self.generation.wrapping_add(1);
        let entry = slab.vacant_entry();
        let id = SocketId::new(shared.worker, entry.key(), self.generation);
        let registry = self.epoll.get_ref().registry();
        let transport = Transport::new(adoption.carrier, shared.options.send_buffer, registry, id.token())?;

        let mut connection = Connection::new(transport, self.generation);
        let mut io = SocketIo { connection: &mut connection, shared, id };
        let peer = self.application.opened(&mut io, adoption.upgrade);
        entry.insert(Entry { connection, peer: Some(peer) });
        *open += 1;
        self.gauge.increment(1);
        // What TLS has decrypted already makes no event.
        if let Some(mut io) = self.sockets.io(id).filter(|io| !io.connection.transport.short_read_is_last()) {
            io.connection.readable = true;
            io.requeue();
        }
        if !adoption.unread.is_empty() {
            self.deliver(id, &mut adoption.unread.to_vec());
        }
        Ok(())
    }

    /// Says goodbye to everybody; the loop ends when the last is gone.
    fn end(&mut self) {
        self.ending = true;
        let Self { application, sockets, .. } = self;
        sockets.each(|socket| {
            let farewell = application.farewell(Cause::Ours);
            socket.close(farewell.close, farewell.text.as_deref());
        });
    }

    fn socket_events(&mut self) {
        let events = std::mem::replace(&mut self.events, mio::Events::with_capacity(0));
        for event in &events {
            let id = SocketId::from_token(event.token());
            let Some(connection) = self.connection(id) else { continue };
            connection.readable |= event.is_readable() || event.is_error();
            connection.finished |= event.is_read_closed() || event.is_error();
            let readable = connection.readable;
            if event.is_writable()
                && let Some(mut io) = self.sockets.io(id)
            {
                io.flush();
            }
            if readable {
                self.turn(id);
            }
        }
        self.events = events;
    }

    /// The entry of that name, in whatever phase.
    pub(super) fn connection(&mut self, id: SocketId) -> Option<&mut Connection> {
        let entry = self.sockets.slab.get_mut(id.slot())?;
        Some(&mut entry.connection).filter(|connection| connection.generation == id.generation())
    }

    /// Tells the application of the connections that ended, and removes those that are of no use any more.
    fn settle(&mut self) {
        while let Some((id, cause)) = self.sockets.shared.ended.pop() {
            let Some(entry) = self.sockets.slab.get_mut(id.slot()) else { continue };
            if entry.connection.generation != id.generation() {
                continue;
            }
            let peer = entry.peer.take();
            if entry.connection.phase == ConnectionState::Condemned {
                let farewell = self.application.farewell(cause);
                let mut io = SocketIo { connection: &mut entry.connection, shared: &mut self.sockets.shared, id };
                io.hang_up(Some(farewell.close), farewell.text.as_deref());
            }
            if entry.connection.phase == ConnectionState::Broken {
                self.sockets.slab.remove(id.slot());
                self.connections.fetch_sub(1, Ordering::Relaxed);
                self.gauge.decrement(1);
            }
            if let Some(peer) = peer {
                self.sockets.open -= 1;
                self.application.closed(&mut self.sockets, id, peer, cause);
            }
        }
    }
}
