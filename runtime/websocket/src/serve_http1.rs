//! One connection from its accept until a worker has it: PROXY protocol, TLS handshake, HTTP requests, upgrade.
use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, time::Duration};

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
    evicting_semaphore::Slot,
    http_hooks::HttpHooks,
    listener_context::{ListenerContext, count_upgrade},
    maybe_tls_stream::{self, MaybeTlsStream},
    proxy_protocol,
    upgrade_service::UpgradeService,
};

/// How long a connection that was not upgraded may take to read the response and send its FIN.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of input discarded meanwhile. Unread input would cause a reset, which could overtake the response.
const MAX_DRAIN: usize = 256 << 10;

/// A connection that has upgraded.
struct Upgraded {
    stream: MaybeTlsStream,
    /// What came right after the request.
    unread: Bytes,
    upgrade: Upgrade,
}

/// Serves a connection until it is over, evicted, or handed to a worker. `held` is what [`HttpHooks::admit`] put there.
pub(crate) async fn serve_connection<C: Send + 'static, H: HttpHooks>(
    context: Arc<ListenerContext<C, H>>,
    stream: TcpStream,
    remote: SocketAddr,
    held: Extensions,
    mut slot: Slot,
) {
    let served = slot.run_until_evicted(serve_http1(&context, stream, remote, held)).await;
    let Some(Some(Upgraded { stream, unread, upgrade })) = served else { return };
    let adopted = match maybe_tls_stream::into_handoff(stream) {
        Ok(handoff) => context.workers.adopt(handoff, unread, upgrade).await.is_ok(),
        Err(_) => false,
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
    let options = &context.options;
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
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(options.max_head)
        .max_headers(options.max_headers)
        .serve_connection(TokioIo::new(stream), UpgradeService::new(Arc::clone(context), remote, held));
    let served = timeout(options.http_timeout, poll_fn(|task| connection.poll_without_shutdown(task))).await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    if let (Ok(Ok(())), Some(head)) = (&served, parts.service.take_upgraded()) {
        return Some(Upgraded { stream, unread: parts.read_buf, upgrade: Upgrade { remote, head: Box::new(head) } });
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
    // Boxed, so that its buffer is not part of the future that every upgrade allocates.
    Box::pin(linger(stream)).await;
    None
}

/// Sends our FIN, and waits until the client has read the response.
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
    // The connection is over, whatever the result.
    let _ = timeout(LINGER, drain).await;
}
