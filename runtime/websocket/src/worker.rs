//! The worker's loop: one task that owns its connections, waits for its epoll, its inbox and its clock, and calls the
//! application.
//!
//! Invariant: one iteration handles at most one read buffer of input and `MAX_MESSAGES` messages of each connection, so
//! one client's flood does not delay the others by more than that. Connections with more input wait in `ready`.
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::Poll;
use slab::Slab;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    application::{Application, Upgrade},
    close::Cause,
    connection::{Connection, ConnectionState, WorkerContext},
    connection_count::WorkerCount,
    engine::Engine,
    engine_request::EngineRequest,
    handoff::Handoff,
    id::SocketId,
    options::SocketOptions,
    read_ready::ReadBuffers,
    send_budget::SendBudget,
    socket_io::SocketIo,
    sockets::Sockets,
    transport::Transport,
};
use rollcall_base::names;

/// The maximum number of commands, and the maximum number of epoll events, of one iteration.
const BATCH: usize = 1024;

/// An item of a worker's inbox.
#[derive(Debug)]
pub(crate) enum Input<C> {
    /// A client has upgraded.
    Adopt(Box<Adoption>),
    /// A request of an Engine.IO session.
    Engine(Box<EngineRequest>),
    /// A command for the application.
    Command(C),
    /// New limits of connections.
    Limits(Box<SocketOptions>),
    /// Closes every connection, and then ends the worker.
    Shutdown,
}

/// A connection on its way from the listener to a worker.
#[derive(Debug)]
pub(crate) struct Adoption {
    pub(crate) handoff: Handoff,
    /// The bytes that the client sent right after its request.
    pub(crate) unread: Bytes,
    pub(crate) upgrade: Upgrade,
    /// Whether the client speaks Engine.IO.
    pub(crate) is_engine: bool,
}

/// The state of a worker's task.
#[derive(Debug)]
pub(crate) struct Worker<A: Application> {
    pub(crate) application: A,
    pub(crate) sockets: Sockets<A::Peer>,
    epoll: AsyncFd<Poll>,
    events: mio::Events,
    pub(crate) buffers: ReadBuffers,
    pub(crate) shutting_down: bool,
}

impl<A: Application> Worker<A> {
    pub(crate) fn new(
        worker: u8,
        options: SocketOptions,
        application: A,
        connections: Arc<WorkerCount>,
        send_budget: Arc<SendBudget>,
        engine: Arc<Engine>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        #[expect(deprecated, reason = "its successor is unsafe, for values whose fd could change; Poll owns its own")]
        let epoll = AsyncFd::with_interest(poll, tokio::io::Interest::READABLE)?;
        let context = WorkerContext {
            worker,
            options,
            encoded: Vec::new(),
            now: 1,
            ticked: Instant::now(),
            send_budget,
            ended: Vec::new(),
            ready: VecDeque::new(),
            generation: 0,
            registry,
            connections,
            gauge: metrics::gauge!(names::CONNECTIONS),
            engine,
            payloads: Vec::new(),
            probes: Vec::new(),
            loads: HashMap::new(),
            carried_sends: Vec::new(),
            carrier_closes: Vec::new(),
        };
        Ok(Self {
            application,
            sockets: Sockets { slab: Slab::new(), context, open: 0 },
            epoll,
            events: mio::Events::with_capacity(BATCH),
            buffers: ReadBuffers::new(),
            shutting_down: false,
        })
    }

    /// Runs until it is told to shut down or every sender is gone, and the last connection has closed.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Input<A::Command>>) {
        let tick = self.sockets.context.options.tick;
        let mut clock = interval(tick);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut batch = Vec::with_capacity(BATCH);
        let mut inbox_closed = false;
        while !(self.shutting_down && self.sockets.slab.is_empty()) {
            let unfinished = !self.sockets.context.ready.is_empty();
            tokio::select! {
                received = inbox.recv_many(&mut batch, BATCH), if !inbox_closed => {
                    if received == 0 {
                        inbox_closed = true;
                        self.shut_down();
                    }
                    for input in batch.drain(..) {
                        self.input(input);
                        // A connection that this input ended is reported before the next input is handled.
                        self.report_ended();
                    }
                }
                polled = poll(&mut self.epoll, &mut self.events) => match polled {
                    Ok(()) => self.socket_events(),
                    Err(error) => tracing::error!(%error, "epoll"),
                },
                _ = clock.tick() => {
                    // A tick that came late is not followed by the next one at once, because that would shorten times.
                    if self.sockets.context.ticked.elapsed() < tick * 3 / 4 {
                        continue;
                    }
                    self.sockets.context.ticked = Instant::now();
                    self.sockets.check_heartbeats(|peer| self.application.ping(peer));
                    self.application.tick(&mut self.sockets, Instant::now());
                }
                // Yielding first lets other tasks and the branches above run between two iterations.
                () = tokio::task::yield_now(), if unfinished => {}
            }
            for _ in 0..self.sockets.context.ready.len() {
                let Some(id) = self.sockets.context.ready.pop_front() else { break };
                if let Some(io) = self.sockets.io(id) {
                    io.connection.queued = false;
                    self.buffers.read_ready(&mut self.application, &mut self.sockets, id);
                }
            }
            self.report_ended();
            self.application.flush(&mut self.sockets);
            self.sockets.send_carried();
            self.sockets.shed_slow_readers();
            self.report_ended();
            if !self.sockets.context.payloads.is_empty() {
                self.sockets.answer_gets();
                self.report_ended();
            }
        }
    }

    fn input(&mut self, input: Input<A::Command>) {
        match input {
            Input::Command(command) => self.application.command(&mut self.sockets, command),
            Input::Adopt(adoption) => {
                if self.shutting_down || self.adopt(*adoption).is_err() {
                    self.sockets.context.connections.remove();
                }
            }
            Input::Engine(request) => self.on_engine_request(*request),
            Input::Limits(options) => self.sockets.context.options.set_limits(&options),
            Input::Shutdown => self.shut_down(),
        }
    }

    fn adopt(&mut self, Adoption { handoff, unread, upgrade, is_engine }: Adoption) -> io::Result<()> {
        let id = self.sockets.insert(|id, context| {
            Transport::new(handoff, context.options.send_buffer, &context.registry, id.token())
        })?;
        let packet = is_engine.then(|| self.sockets.context.engine.open(id, &[]));
        self.open(id, upgrade, packet.as_deref());
        // Bytes that TLS has decrypted already raise no event.
        if let Some(mut io) = self.sockets.io(id).filter(|io| !io.connection.transport.short_read_is_last()) {
            io.connection.readable = true;
            io.requeue();
        }
        if !unread.is_empty() {
            self.buffers.deliver(&mut self.application, &mut self.sockets, id, &mut unread.to_vec());
        }
        Ok(())
    }

    /// Gives the application a connection. A client that speaks Engine.IO gets `packet` first.
    pub(crate) fn open(&mut self, id: SocketId, upgrade: Upgrade, packet: Option<&str>) {
        let Sockets { slab, context, open } = &mut self.sockets;
        let Some(entry) = slab.get_mut(id.index()) else { return };
        let mut io = SocketIo { connection: &mut entry.connection, context, id };
        if let Some(packet) = packet {
            io.begin_engine();
            io.send_packet(packet);
        }
        entry.peer = Some(self.application.opened(&mut io, upgrade));
        *open += 1;
    }

    /// Closes every connection. The loop ends when the last one is gone.
    fn shut_down(&mut self) {
        self.shutting_down = true;
        let Self { application, sockets, .. } = self;
        sockets.each(|socket| {
            let notice = application.close_notice(socket.peer, Cause::ClosedByServer);
            socket.close(notice.close, notice.text.as_deref());
        });
    }

    fn socket_events(&mut self) {
        for event in &self.events {
            let id = SocketId::from_token(event.token());
            let Some(mut io) = self.sockets.io(id) else { continue };
            io.connection.readable |= event.is_readable() || event.is_error();
            io.connection.finished |= event.is_read_closed() || event.is_error();
            let readable = io.connection.readable;
            if event.is_writable() {
                io.flush();
            }
            if readable {
                self.buffers.read_ready(&mut self.application, &mut self.sockets, id);
            }
        }
    }

    /// Reports ended connections to the application, and removes those whose stream cannot be used any more.
    fn report_ended(&mut self) {
        loop {
            while let Some((id, cause)) = self.sockets.context.ended.pop() {
                self.report_end(id, cause);
            }
            if !self.sockets.close_carrier() {
                return;
            }
        }
    }

    fn report_end(&mut self, id: SocketId, cause: Cause) {
        let Some(entry) = self.sockets.slab.get_mut(id.index()) else { return };
        if entry.connection.generation != id.generation() {
            return;
        }
        let peer = entry.peer.take();
        if entry.connection.state == ConnectionState::MarkedClosing
            && let Some(peer) = &peer
        {
            let notice = self.application.close_notice(peer, cause);
            let mut io = SocketIo { connection: &mut entry.connection, context: &mut self.sockets.context, id };
            io.start_close(Some(notice.close), notice.text.as_deref());
        }
        if entry.connection.state == ConnectionState::Broken {
            self.sockets.send_queued(id);
            match self.sockets.remove(id.index()) {
                Some(Connection { transport: Transport::Polling(session), .. }) => self.sockets.release(*session),
                Some(removed) => self.sockets.put_down(id, &removed),
                None => {}
            }
        }
        if let Some(peer) = peer {
            self.sockets.open -= 1;
            self.sockets.end_load(id, cause);
            self.application.closed(&mut self.sockets, id, peer, cause);
        }
    }
}

/// Waits for the epoll and takes its events.
async fn poll(epoll: &mut AsyncFd<Poll>, events: &mut mio::Events) -> io::Result<()> {
    let mut guard = epoll.readable_mut().await?;
    guard.get_inner_mut().poll(events, Some(Duration::ZERO))?;
    // A full batch may have left some events behind, for which no new edge comes.
    if events.iter().count() < BATCH {
        guard.clear_ready();
    }
    Ok(())
}
