//! The way in: accepted connections send one request head each, which hyper reads; upgrades go to a worker as bare
//! streams, other paths to the application's own HTTP.
//!
//! Invariant: a connection without a whole head costs one of `half_open` places for `head_timeout` at most, less if others
//! need it, and an accept that fails (no files left) never ends the loop.
use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    http::{Extensions, request::Parts},
    server::conn::http1,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{
    Upgrade, Workers,
    maybe_tls_stream::{Certificate, MaybeTlsStream},
    origins::Origins,
    proxy_protocol,
    upgrade_service::UpgradeService,
};
use crate::evicting_semaphore::{EvictingSemaphore, Slot};
use rollcall_base::{log_limit::LogLimit, names};

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
    /// Whether pages of loopback addresses may connect besides those, on any port.
    pub loopback_pages: bool,
    /// Whether connections come from balancers and begin with a header of the PROXY protocol; see [`HttpHooks::is_proxy`].
    pub proxy_protocol: bool,
    /// For a request's head.
    pub head_timeout: Duration,
    /// For everything on a connection that does not upgrade.
    pub http_timeout: Duration,
    /// Bytes of a head; above: 431.
    pub max_head: usize,
    /// Headers; above: 431.
    pub max_headers: usize,
    /// Connections that have not upgraded yet; above, a new one takes the place of the oldest, if that has
    /// been here for a second.
    pub half_open: usize,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            path: "/ws".into(),
            certificate: None,
            origins: Origins::default(),
            loopback_pages: false,
            proxy_protocol: false,
            head_timeout: Duration::from_secs(5),
            http_timeout: Duration::from_secs(10),
            max_head: 16 << 10,
            max_headers: 100,
            half_open: 8192,
        }
    }
}

/// What the application has to say before a connection is a socket.
pub trait HttpHooks: Send + Sync + 'static {
    /// Whether an accepted connection may send a head at all; if not, it is closed without a word. What is put into
    /// `holds` is found in the extensions of the head that is upgraded, and else lives until the connection is over.
    fn admit(&self, remote: SocketAddr, holds: &mut Extensions) -> bool {
        let _ = (remote, holds);
        true
    }

    /// Whether a balancer there may say who the client is ([`ListenerOptions::proxy_protocol`]). Others are closed.
    fn is_proxy(&self, remote: SocketAddr) -> bool {
        let _ = remote;
        false
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
pub async fn serve<C: Send + 'static, F: HttpHooks>(
    listener: TcpListener,
    options: ListenerOptions,
    front: F,
    workers: Workers<C>,
    shutdown: impl Future<Output = ()>,
) {
    let places = EvictingSemaphore::new(options.half_open, "half_open_full");
    let house = Arc::new(ListenerContext {
        options,
        front,
        workers,
        origin_log: LogLimit::new(),
        stranger_log: LogLimit::new(),
    });
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = BACKOFF;
    loop {
        let accepted = async {
            let (stream, remote) = listener.accept().await?;
            let mut holds = Extensions::new();
            if house.options.proxy_protocol && !house.front.is_proxy(remote) {
                house.log_stranger(remote);
                return Ok(Err("not_a_proxy"));
            }
            if !house.front.admit(remote, &mut holds) {
                return Ok(Err("not_admitted"));
            }
            Ok::<_, io::Error>(Ok((stream, (remote, holds), places.take().await)))
        };
        tokio::select! {
            () = &mut shutdown => return,
            accepted = accepted => match accepted {
                Ok(admitted) => {
                    backoff = BACKOFF;
                    match admitted {
                        Ok((stream, who, place)) => {
                            tokio::spawn(enter(Arc::clone(&house), stream, who, place));
                        }
                        Err(outcome) => upgraded(outcome),
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

pub(super) fn upgraded(outcome: &'static str) {
    counter!(names::UPGRADES, "outcome" => outcome).increment(1);
}

#[derive(Debug)]
pub(super) struct ListenerContext<C, F> {
    pub(super) options: ListenerOptions,
    pub(super) front: F,
    pub(super) origin_log: LogLimit,
    stranger_log: LogLimit,
    workers: Workers<C>,
}

impl<C, F> ListenerContext<C, F> {
    fn log_stranger(&self, remote: SocketAddr) {
        if let Some(held_back) = self.stranger_log.pass() {
            let mend = "a connection that is no balancer's was closed; ROLLCALL_TRUSTED_PROXIES names the balancers";
            tracing::warn!(from = %remote.ip(), held_back, "{mend}");
        }
    }
}

/// One connection until a worker has it, or it is over.
async fn enter<C: Send + 'static, F: HttpHooks>(
    house: Arc<ListenerContext<C, F>>,
    stream: TcpStream,
    who: (SocketAddr, Extensions),
    mut place: Slot,
) {
    let Some(Some(Upgraded { stream, unread, upgrade })) = place.until_needed(converse(&house, stream, who)).await
    else {
        return;
    };
    let adopted = match stream.into_carrier() {
        Ok(carrier) => house.workers.adopt(carrier, unread, upgrade).await.is_ok(),
        Err(_) => false,
    };
    upgraded(if adopted { "accepted" } else { "lost" });
}

/// Who has upgraded.
struct Upgraded {
    stream: MaybeTlsStream,
    /// What came right behind the request.
    unread: Bytes,
    upgrade: Upgrade,
}

/// One connection's requests until one is upgraded.
async fn converse<C: Send + 'static, F: HttpHooks>(
    house: &Arc<ListenerContext<C, F>>,
    mut stream: TcpStream,
    (mut remote, mut holds): (SocketAddr, Extensions),
) -> Option<Upgraded> {
    let options = &house.options;
    if options.proxy_protocol {
        let Ok(Ok(client)) = timeout(options.head_timeout, proxy_protocol::read(&mut stream)).await else {
            upgraded("proxy_protocol");
            return None;
        };
        if let Some(client) = client {
            remote = client;
            if !house.front.admit(remote, &mut holds) {
                upgraded("not_admitted");
                return None;
            }
        }
    }
    let Some(stream) = MaybeTlsStream::open(stream, options.certificate.as_ref(), options.head_timeout).await else {
        upgraded("tls");
        return None;
    };
    let doorman = UpgradeService::new(Arc::clone(house), remote, holds);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(options.max_head)
        .max_headers(options.max_headers)
        .serve_connection(TokioIo::new(stream), doorman);
    let served = timeout(options.http_timeout, poll_fn(|context| connection.poll_without_shutdown(context))).await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    if let (Ok(Ok(())), Some(head)) = (&served, parts.service.upgraded()) {
        return Some(Upgraded { stream, unread: parts.read_buf, upgrade: Upgrade { remote, head: Box::new(head) } });
    }
    if let Ok(Err(error)) = &served
        && !parts.service.was_asked()
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
    None
}

/// Half-closes and waits for the client to have read the answer.
async fn linger(mut stream: MaybeTlsStream) {
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
