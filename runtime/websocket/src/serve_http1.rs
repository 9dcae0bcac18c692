//! Serves one connection from its accept until a worker has it: PROXY protocol, TLS handshake, HTTP requests, upgrade.
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use hyper::{http::Extensions, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    application::Upgrade,
    engine_request::EngineRequest,
    evicting_semaphore::Slot,
    http_hooks::HttpHooks,
    listener_context::{ListenerContext, count_upgrade},
    maybe_tls_stream::{self, MaybeTlsStream},
    proxy_protocol,
    upgrade_service::{Handover, UpgradeService},
};

/// How long a connection that was not upgraded may take to read the response and to send its FIN.
const LINGER: Duration = Duration::from_secs(2);
/// The bytes of input that are discarded meanwhile. Unread input would cause a reset, which could overtake the
/// response.
const MAX_DRAIN: usize = 256 << 10;

/// A connection that has upgraded.
struct Upgraded {
    stream: MaybeTlsStream,
    /// The bytes that came right after the request.
    unread: Bytes,
    remote: SocketAddr,
    handover: Handover,
}

/// Serves a connection until it has ended, is evicted, or is given to a worker. `held` has the values of
/// [`HttpHooks::admit`].
pub(crate) async fn serve_connection<C: Send + 'static, H: HttpHooks>(
    context: Arc<ListenerContext<C, H>>,
    stream: TcpStream,
    remote: SocketAddr,
    held: Extensions,
    mut slot: Slot,
) {
    let served = slot.run_until_evicted(serve_http1(&context, stream, remote, held)).await;
    let Some(Some(Upgraded { stream, unread, remote, handover })) = served else { return };
    let Ok(handoff) = maybe_tls_stream::into_handoff(stream) else { return count_upgrade("lost") };
    let workers = &context.workers;
    let adopted = match handover {
        Handover::WebSocket(head) => {
            workers.adopt(handoff, unread, Upgrade { remote, head: Box::new(head) }).await.is_ok()
        }
        Handover::Engine(head) => {
            workers.adopt_engine(handoff, unread, Upgrade { remote, head: Box::new(head) }).await.is_ok()
        }
        Handover::Probe(named) => {
            workers.add_to_session(named, EngineRequest::Probe { named, handoff, unread }).await.is_ok()
        }
        Handover::Get(named, headers) => {
            // If this fails, the worker has stopped, and the process ends.
            let get = EngineRequest::Get { named, handoff, headers, is_followed: !unread.is_empty() };
            let _ = workers.add_to_session(named, get).await;
            return;
        }
    };
    count_upgrade(if adopted { "accepted" } else { "lost" });
}

/// Serves a connection's requests until one is upgraded.
async fn serve_http1<C: Send + 'static, H: HttpHooks>(
    context: &Arc<ListenerContext<C, H>>,
    mut stream: TcpStream,
    mut remote: SocketAddr,
    mut held: Extensions,
) -> Option<Upgraded> {
    let options = context.options();
    if options.proxy_protocol {
        let Ok(Ok(client)) = timeout(options.head_timeout, proxy_protocol::read(&mut stream)).await else {
            count_upgrade("proxy_protocol");
            return None;
        };
        if let Some(client) = client {
            remote = client;
            if !context.hooks.admit(remote, &mut held) {
                count_upgrade("not_admitted");
                return None;
            }
        }
    }
    let stream = maybe_tls_stream::open(stream, options.certificate.as_ref(), options.head_timeout).await;
    let Some(stream) = stream else {
        count_upgrade("tls");
        return None;
    };
    let taken_over = AtomicBool::new(false);
    let service = UpgradeService::new(Arc::clone(context), Arc::clone(&options), remote, held, &taken_over);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(options.max_head)
        .max_headers(options.max_headers)
        .serve_connection(TokioIo::new(stream), service);
    // Clients of Engine.IO send many requests on a connection, and the last of them must be answered.
    let mut finish_last = options.engine_path.is_some();
    let served = loop {
        let serve = poll_fn(|task| match connection.poll_without_shutdown(task) {
            _ if taken_over.load(Ordering::Relaxed) => Poll::Ready(Ok(())),
            polled => polled,
        });
        let served = timeout(options.http_timeout, serve).await;
        if served.is_ok() || !std::mem::take(&mut finish_last) {
            break served;
        }
        Pin::new(&mut connection).graceful_shutdown();
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    if let (Ok(Ok(())), Some(handover)) = (&served, parts.service.take_handover()) {
        return Some(Upgraded { stream, unread: parts.read_buf, remote, handover });
    }
    if let Ok(Err(error)) = &served
        && !parts.service.had_request()
    {
        count_upgrade(if error.is_timeout() {
            "head_timeout"
        } else if error.is_parse() {
            "bad_head"
        } else {
            "lost"
        });
    }
    // The future is boxed, so that its buffer is not part of the future that every upgrade allocates.
    Box::pin(linger(stream)).await;
    None
}

/// Sends the server's FIN, and waits until the client has read the response.
async fn linger(mut stream: MaybeTlsStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut buffer = [0; 2048];
        let mut drained = 0;
        while drained < MAX_DRAIN {
            match stream.read(&mut buffer).await? {
                0 => break,
                size => drained += size,
            }
        }
        Ok::<_, io::Error>(())
    };
    // The connection has ended in any case.
    let _ = timeout(LINGER, drain).await;
}
