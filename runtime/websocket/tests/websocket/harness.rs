//! The real listener and workers on a free port, with an application that records its calls.
use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use rollcall_websocket::{
    Application, Cause, CloseNotice, HttpHooks, ListenerOptions, Message, Socket, SocketId, SocketIo, SocketOptions,
    Sockets, Upgrade, Workers, bind, serve,
};
use tokio::runtime::Runtime;

use crate::client::{Client, upgrade};

/// A deadline. Anything that takes longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A call that the application got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Opened(SocketId, Option<String>),
    Text(SocketId, String),
    Binary(SocketId, Vec<u8>),
    Closed(SocketId, Cause),
}

/// A function that the worker runs.
pub type Job = Box<dyn FnOnce(&mut Sockets<()>) + Send>;

struct Recorder {
    seen: Sender<Seen>,
    pause_after: Option<String>,
}

impl Recorder {
    fn record(&self, seen: Seen) {
        // Sending fails if the test has ended already.
        let _ = self.seen.send(seen);
    }
}

impl Application for Recorder {
    type Peer = ();
    type Command = Job;

    fn opened(&mut self, socket: &mut SocketIo<'_>, upgrade: Upgrade) {
        self.record(Seen::Opened(socket.id(), upgrade.query().map(String::from)));
    }

    fn message(&mut self, socket: &mut Socket<'_, ()>, message: Message<'_>) {
        match message {
            Message::Text(text) => {
                if self.pause_after.as_deref() == Some(text) {
                    socket.pause();
                }
                self.record(Seen::Text(socket.id(), text.into()));
            }
            Message::Binary(data) => self.record(Seen::Binary(socket.id(), data.into())),
        }
    }

    fn command(&mut self, sockets: &mut Sockets<()>, job: Job) {
        job(sockets);
    }

    fn close_notice(&mut self, (): &(), cause: Cause) -> CloseNotice {
        let (code, text) = match cause {
            Cause::SlowConsumer => (3008, "slow_consumer"),
            Cause::PongTimedOut => (3012, "pong_timed_out"),
            _ => (3001, "terminated"),
        };
        CloseNotice { close: code.into(), text: Some(Bytes::from_static(text.as_bytes())) }
    }

    fn closed(&mut self, sockets: &mut Sockets<()>, id: SocketId, (): (), cause: Cause) {
        assert!(sockets.get_mut(id).is_none(), "a closed socket can still be found");
        self.record(Seen::Closed(id, cause));
    }
}

struct Fallback;

impl HttpHooks for Fallback {
    async fn other(&self, _: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        Response::new(Full::from(format!("other {}", request.uri().path())))
    }
}

/// One listener with one worker.
pub struct Server {
    pub address: SocketAddr,
    pub workers: Workers<Job>,
    seen: Receiver<Seen>,
    runtime: Runtime,
}

impl Server {
    pub fn start() -> Self {
        Self::with(SocketOptions::default(), ListenerOptions::default(), None)
    }

    pub fn with_options(options: SocketOptions) -> Self {
        Self::with(options, ListenerOptions::default(), None)
    }

    /// Starts a server whose application pauses a socket after the message `pause_after`.
    pub fn with(options: SocketOptions, listening: ListenerOptions, pause_after: Option<&str>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let entered = runtime.enter();
        let (sender, seen) = channel();
        let recorder = |_| Recorder { seen: sender.clone(), pause_after: pause_after.map(String::from) };
        let workers =
            Workers::start(&rollcall_base::tasks::Tasks::default(), 1, &options, "test", recorder).expect("a worker");
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let listening = tokio::sync::watch::channel(std::sync::Arc::new(listening)).1;
        runtime.spawn(serve(listener, listening, Fallback, workers.clone(), std::future::pending()));
        drop(entered);
        Self { address, workers, seen, runtime }
    }

    pub fn seen(&self) -> Seen {
        self.seen.recv_timeout(DEADLINE).expect("the application sees something in time")
    }

    /// Returns a client that has upgraded.
    pub fn client(&self) -> Client {
        let mut client = Client::dial(self.address);
        client.send(upgrade("/ws", "").as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let Seen::Opened(id, _) = self.seen() else { panic!("opened comes first") };
        client.id = Some(id);
        client
    }

    /// Lets the worker run `job`, and waits for its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Sockets<()>) -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let job: Job = Box::new(move |sockets| sender.send(job(sockets)).expect("the test waits"));
        self.runtime.block_on(self.workers.send(0, job)).expect("the worker runs");
        receiver.recv_timeout(DEADLINE).expect("the worker answers in time")
    }

    /// Lets the worker run `act` on one open socket.
    pub fn with_socket<T: Send + 'static>(
        &self,
        id: SocketId,
        act: impl FnOnce(&mut Socket<'_, ()>) -> T + Send + 'static,
    ) -> T {
        self.run(move |sockets| act(&mut sockets.get_mut(id).expect("the socket is open")))
    }

    /// Waits until all connections are gone. Returns how long that took.
    pub fn emptied(&self) -> Duration {
        let start = Instant::now();
        while self.workers.connections() > 0 {
            assert!(start.elapsed() < 2 * DEADLINE, "a connection is never removed");
            std::thread::yield_now();
        }
        start.elapsed()
    }

    /// Shuts the workers down while `meanwhile` runs.
    pub fn shut_down_while(&self, meanwhile: impl FnOnce()) {
        let workers = self.workers.clone();
        let ending = self.runtime.spawn(async move { tokio::time::timeout(DEADLINE, workers.shutdown()).await });
        meanwhile();
        self.runtime.block_on(ending).expect("no panic").expect("the workers end in time");
    }
}
