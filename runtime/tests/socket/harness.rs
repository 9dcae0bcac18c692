//! The real listener and workers on a free port, an application that records, and clients that write bytes.
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use rollcall_runtime::socket::{
    Application, Cause, Farewell, Front, ListenerOptions, Message, Socket, SocketId, SocketIo, SocketOptions, Sockets,
    Upgrade, Workers, bind, serve,
};
use tokio::runtime::Runtime;

/// Nothing in these tests takes longer, or it has failed.
pub const DEADLINE: Duration = Duration::from_secs(10);
pub const MASK: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];

/// What the application saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Opened(SocketId, Option<String>),
    Text(SocketId, String),
    Binary(SocketId, Vec<u8>),
    Closed(SocketId, Cause),
}

/// Run by the worker, in its turn.
pub type Order = Box<dyn FnOnce(&mut Sockets<()>) + Send>;

struct Recorder {
    seen: Sender<Seen>,
    pause_after: Option<String>,
}

impl Recorder {
    fn record(&self, seen: Seen) {
        // A test that has ended looks at nothing any more.
        let _ = self.seen.send(seen);
    }
}

impl Application for Recorder {
    type Peer = ();
    type Command = Order;

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

    fn command(&mut self, sockets: &mut Sockets<()>, order: Order) {
        order(sockets);
    }

    fn farewell(&mut self, cause: Cause) -> Farewell {
        let (code, text) = match cause {
            Cause::SlowConsumer => (3008, "slow_consumer"),
            Cause::PongTimedOut => (3012, "pong_timed_out"),
            _ => (3001, "terminated"),
        };
        Farewell { code, text: Some(Bytes::from_static(text.as_bytes())) }
    }

    fn closed(&mut self, sockets: &mut Sockets<()>, id: SocketId, (): (), cause: Cause) {
        assert!(sockets.get_mut(id).is_none(), "a closed socket can still be found");
        self.record(Seen::Closed(id, cause));
    }
}

struct Fallback;

impl Front for Fallback {
    async fn other(&self, _: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        Response::new(Full::from(format!("other {}", request.uri().path())))
    }
}

/// One listener with one worker.
pub struct Server {
    pub address: SocketAddr,
    pub workers: Workers<Order>,
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

    /// The application pauses a socket after a message that says `pause_after`.
    pub fn with(options: SocketOptions, listening: ListenerOptions, pause_after: Option<&str>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let _entered = runtime.enter();
        let (sender, seen) = channel();
        let recorder = |_| Recorder { seen: sender.clone(), pause_after: pause_after.map(String::from) };
        let workers = Workers::start(1, &options, recorder).expect("a worker");
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        runtime.spawn(serve(listener, listening, Fallback, workers.clone(), std::future::pending()));
        Self {
            address,
            workers,
            seen,
            runtime: {
                drop(_entered);
                runtime
            },
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen.recv_timeout(DEADLINE).expect("the application sees something in time")
    }

    /// A client that has upgraded.
    pub fn client(&self) -> Client {
        let mut client = Client::dial(self.address);
        client.send(upgrade("/ws", "").as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let Seen::Opened(id, _) = self.seen() else { panic!("opened comes first") };
        client.id = Some(id);
        client
    }

    /// Has the worker run something, and waits for what it returns.
    pub fn order<T: Send + 'static>(&self, order: impl FnOnce(&mut Sockets<()>) -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let order: Order = Box::new(move |sockets| sender.send(order(sockets)).expect("somebody waits"));
        self.runtime.block_on(self.workers.send(0, order)).expect("the worker runs");
        receiver.recv_timeout(DEADLINE).expect("the worker obeys in time")
    }

    /// Has the worker do something with one open socket.
    pub fn with_socket<T: Send + 'static>(
        &self,
        id: SocketId,
        act: impl FnOnce(&mut Socket<'_, ()>) -> T + Send + 'static,
    ) -> T {
        self.order(move |sockets| act(&mut sockets.get_mut(id).expect("the socket is open")))
    }

    /// Waits until no connection costs anything any more; how long that took.
    pub fn emptied(&self) -> Duration {
        let start = Instant::now();
        while self.workers.connections() > 0 {
            assert!(start.elapsed() < 2 * DEADLINE, "a connection stays for ever");
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

/// A request for an upgrade, with more headers.
pub fn upgrade(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// A frame as clients send it.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        size @ 0..126 => bytes.push(0x80 | size as u8),
        size @ 126..65536 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

pub fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

pub struct Client {
    stream: TcpStream,
    id: Option<SocketId>,
}

impl Client {
    pub fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_write_timeout(Some(DEADLINE)).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, id: None }
    }

    pub fn id(&self) -> SocketId {
        self.id.expect("upgraded")
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends until the server has closed or reset; what it takes.
    pub fn flood(&mut self, bytes: &[u8]) -> usize {
        let start = Instant::now();
        let mut sent = 0;
        loop {
            assert!(start.elapsed() < 2 * DEADLINE, "the flood is never ended");
            match self.stream.write(bytes) {
                Ok(size) => sent += size,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return sent,
            }
        }
    }

    /// Sends a byte at a time, `pace` apart, until the server ends the connection.
    pub fn dribble(&mut self, bytes: impl IntoIterator<Item = u8>, pace: Duration) {
        self.stream.set_read_timeout(Some(pace)).expect("a pace");
        for byte in bytes {
            if self.stream.write_all(&[byte]).is_err() || self.stream.read(&mut [0]).is_ok() {
                return;
            }
        }
        panic!("the server waited for all of it");
    }

    pub fn take(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.stream.read_exact(&mut bytes).expect("so many bytes in time");
        bytes
    }

    /// A response's head.
    pub fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.take(1));
        }
        String::from_utf8(head).expect("a head is text")
    }

    /// The next frame: first byte and payload.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        let size = match head[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().expect("two")).into(),
            127 => u64::from_be_bytes(self.take(8).try_into().expect("eight")) as usize,
            size => usize::from(size),
        };
        (head[0], self.take(size))
    }

    /// All that comes until the server's FIN; a reset is a failure.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an orderly end in time");
        rest
    }

    /// Exactly a close frame with that code, then the end.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        let [high, low] = code.to_be_bytes();
        assert_eq!(self.rest(), [0x88, 2, high, low]);
    }
}
