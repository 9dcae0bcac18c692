//! The way in: accepted connections send one request head each, which hyper reads; upgrades go to a worker as bare
//! streams, other paths to the application's own HTTP.
//!
//! Invariant: a connection without a whole head costs one of `half_open` places for `head_timeout` at most, and an
//! accept that fails (no files left) never ends the loop.
use std::{
    future::{Future, Ready, poll_fn, ready},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    http::{Extensions, request::Parts},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{
    Upgrade, Workers, handshake,
    handshake::Origins,
    wire::{Certificate, Wire},
};
use crate::names;

/// Pause after an accept that failed for want of something; then twice as long, up to a second.
const BACKOFF: Duration = Duration::from_millis(10);
/// For the answer to leave and the client's FIN to come, where nothing was upgraded.
const LINGER: Duration = Duration::from_secs(2);
/// Unread input thrown away meanwhile, so that no reset overtakes the answer.
const MAX_DRAIN: usize = 256 << 10;

/// Parameters of a listener.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// The WebSocket's path.
    pub path: String,
    /// What clients speak TLS with; none: they speak plainly.
    pub certificate: Option<Certificate>,
    /// Which pages may connect.
    pub origins: Origins,
    /// For a request's head.
    pub head_timeout: Duration,
    /// For everything on a connection that does not upgrade.
    pub http_timeout: Duration,
    /// Bytes of a head; above: 431.
    pub max_head: usize,
    /// Headers; above: 431.
    pub max_headers: usize,
    /// Connections that have not upgraded yet; above, new ones wait in the kernel's backlog.
    pub half_open: usize,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            path: "/ws".into(),
            certificate: None,
            origins: Origins::default(),
            head_timeout: Duration::from_secs(5),
            http_timeout: Duration::from_secs(10),
            max_head: 16 << 10,
            max_headers: 100,
            half_open: 8192,
        }
    }
}

/// What the application has to say before a connection is a socket.
pub trait Front: Send + Sync + 'static {
    /// Whether an accepted connection may send a head at all; if not, it is closed without a word. What is put into
    /// `holds` is found in the extensions of the head that is upgraded, and else lives until the connection is over.
    fn admit(&self, remote: SocketAddr, holds: &mut Extensions) -> bool {
        let _ = (remote, holds);
        true
    }

    /// A request that passed all checks is about to be upgraded; what is left in its extensions arrives in
    /// [`Upgrade::head`]. An answer instead of that refuses it; then they live until the connection is over.
    fn upgrade(&self, remote: SocketAddr, head: &mut Parts) -> Result<(), Box<Response<Full<Bytes>>>> {
        let _ = (remote, head);
        Ok(())
    }

    /// A request for any other path.
    fn other(
        &self,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Binds a listener that survives storms: a backlog of 16,384, where the kernel allows it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(16 << 10)
}

/// Accepts until `shutdown` is done. Requests under way then are finished; accepted sockets are the workers' business.
pub async fn serve<C: Send + 'static, F: Front>(
    listener: TcpListener,
    options: ListenerOptions,
    front: F,
    workers: Workers<C>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(options.half_open));
    let house = Arc::new(House { options, front, workers });
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = BACKOFF;
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, remote) = listener.accept().await?;
            Ok::<_, io::Error>((place, stream, remote))
        };
        tokio::select! {
            () = &mut shutdown => return,
            accepted = accepted => match accepted {
                Ok((place, stream, remote)) => {
                    backoff = BACKOFF;
                    let mut holds = Extensions::new();
                    if house.front.admit(remote, &mut holds) {
                        tokio::spawn(converse(Arc::clone(&house), stream, (remote, holds), place));
                    } else {
                        upgraded("not_admitted");
                    }
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, ?backoff, "cannot accept");
                    counter!(names::DROPPED, "reason" => "accept").increment(1);
                    tokio::select! {
                        () = &mut shutdown => return,
                        () = sleep(backoff) => backoff = (backoff * 2).min(Duration::from_secs(1)),
                    }
                }
            }
        }
    }
}

/// Faults of one connection, not of the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn upgraded(outcome: &'static str) {
    counter!(names::UPGRADES, "outcome" => outcome).increment(1);
}

#[derive(Debug)]
struct House<C, F> {
    options: ListenerOptions,
    front: F,
    workers: Workers<C>,
}

/// One connection's requests until one is upgraded.
async fn converse<C: Send + 'static, F: Front>(
    house: Arc<House<C, F>>,
    stream: TcpStream,
    (remote, holds): (SocketAddr, Extensions),
    place: OwnedSemaphorePermit,
) {
    let options = &house.options;
    let Some(stream) = Wire::open(stream, options.certificate.as_ref(), options.head_timeout).await else {
        return upgraded("tls");
    };
    let (holds, head) = (Mutex::new(holds), Mutex::new(None));
    let doorman = Doorman { house: Arc::clone(&house), remote, holds, head, asked: AtomicBool::new(false) };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(options.max_head)
        .max_headers(options.max_headers)
        .serve_connection(TokioIo::new(stream), doorman);
    let served = timeout(options.http_timeout, poll_fn(|context| connection.poll_without_shutdown(context))).await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    let asked = parts.service.asked.into_inner();
    let head = parts.service.head.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (served, head) {
        (Ok(Ok(())), Some(head)) => {
            let adopted = match stream.into_carrier() {
                Ok(carrier) => {
                    let upgrade = Upgrade { remote, head: Box::new(head) };
                    house.workers.adopt(carrier, parts.read_buf, upgrade).await.is_ok()
                }
                Err(_) => false,
            };
            upgraded(if adopted { "accepted" } else { "lost" });
        }
        (served, _) => {
            if let Ok(Err(error)) = &served
                && !asked
            {
                upgraded(if error.is_timeout() {
                    "head_timeout"
                } else if error.is_parse() {
                    "bad_head"
                } else {
                    "lost"
                });
            }
            // Apart, so that its buffer is no part of what every upgrade allocates.
            Box::pin(linger(stream)).await;
        }
    }
    drop(place);
}

/// Half-closes and waits for the client to have read the answer.
async fn linger(mut stream: Wire) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = [0; 2048];
        let mut drained = 0;
        while drained < MAX_DRAIN {
            match stream.read(&mut scratch).await? {
                0 => break,
                size => drained += size,
            }
        }
        Ok::<_, io::Error>(())
    };
    // Whatever comes of it, the connection is over.
    let _ = timeout(LINGER, drain).await;
}

/// Answers the requests of one connection, and keeps the head of the one that is upgraded.
#[derive(Debug)]
struct Doorman<C, F> {
    house: Arc<House<C, F>>,
    remote: SocketAddr,
    holds: Mutex<Extensions>,
    head: Mutex<Option<Parts>>,
    /// Whether a whole head came: what ends the connection later is nobody's failed upgrade.
    asked: AtomicBool,
}

impl<C, F: Front> Doorman<C, F> {
    fn upgrade(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Err(refusal) = handshake::check(&request, &self.house.options.origins) {
            upgraded(refusal.outcome());
            return refusal.response();
        }
        let response = handshake::accept(&request);
        let (mut head, _) = request.into_parts();
        head.extensions.extend(std::mem::take(&mut *self.holds.lock().unwrap_or_else(PoisonError::into_inner)));
        match self.house.front.upgrade(self.remote, &mut head) {
            Ok(()) => {
                *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
                response
            }
            Err(refusal) => {
                upgraded("refused");
                *self.holds.lock().unwrap_or_else(PoisonError::into_inner) = head.extensions;
                *refusal
            }
        }
    }
}

impl<C: Send + 'static, F: Front> Service<Request<Incoming>> for Doorman<C, F> {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.asked.store(true, Ordering::Relaxed);
        if request.uri().path() == self.house.options.path {
            Answer::Now(ready(self.upgrade(request)))
        } else {
            let (house, remote) = (Arc::clone(&self.house), self.remote);
            Answer::Later(Box::pin(async move { house.front.other(remote, request).await }))
        }
    }
}

/// An upgrade's answer costs no allocation.
enum Answer {
    Now(Ready<Response<Full<Bytes>>>),
    Later(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Full<Bytes>>, std::convert::Infallible>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(answer) => Pin::new(answer).poll(context).map(Ok),
            Self::Later(answer) => answer.as_mut().poll(context).map(Ok),
        }
    }
}
