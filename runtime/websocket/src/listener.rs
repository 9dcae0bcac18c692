//! Accepts connections. hyper parses their request heads. Upgraded connections go to a worker, and requests for other
//! paths to the application's [`HttpHooks`].
//!
//! Invariant: a connection that has not sent a complete head takes one of `max_half_open` slots for at most
//! `head_timeout`, or less if another connection needs the slot. A failed accept (no files left) never ends the loop.
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::http::Extensions;
use metrics::counter;
use tokio::{
    net::{TcpListener, TcpSocket},
    time::sleep,
};

use crate::{
    http_hooks::HttpHooks,
    listener_context::{ListenerContext, count_upgrade},
    options::CurrentOptions,
    serve_http1::serve_connection,
    workers::Workers,
};
use rollcall_base::names;

/// The pause after a failed accept. It doubles with each failure, up to a second.
const BACKOFF: Duration = Duration::from_millis(10);
/// The time between two checks, during a drain, whether sessions by long-polling still need the listener.
const POLLING_CHECK: Duration = Duration::from_millis(50);
/// How many accepted connections may wait in the kernel, if its own limit allows that many. This is enough for many
/// clients at once.
const BACKLOG: u32 = 16 << 10;

/// Binds a listener with a backlog of 16,384, if the kernel allows it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `shutdown` is done, and after that only for sessions by long-polling, until the last of them has
/// ended. Requests that have begun are finished. Upgraded sockets belong to the workers.
pub async fn serve<C: Send + 'static, H: HttpHooks>(
    listener: TcpListener,
    options: CurrentOptions,
    hooks: H,
    workers: Workers<C>,
    shutdown: impl Future<Output = ()>,
) {
    let context = Arc::new(ListenerContext::new(options, hooks, workers));
    let end = async {
        shutdown.await;
        context.draining.store(true, Ordering::Relaxed);
        while context.workers.engine().has_polling() {
            sleep(POLLING_CHECK).await;
        }
    };
    let mut end = std::pin::pin!(end);
    let mut backoff = BACKOFF;
    loop {
        let accept = async {
            let (stream, remote) = listener.accept().await?;
            let mut held = Extensions::new();
            if context.options().proxy_protocol && !context.hooks.is_proxy(remote) {
                context.log_not_a_proxy(remote);
                count_upgrade("not_a_proxy");
            } else if !context.hooks.admit(remote, &mut held) {
                count_upgrade("not_admitted");
            } else {
                let slot = context.half_open.acquire().await;
                tokio::spawn(serve_connection(Arc::clone(&context), stream, remote, held, slot));
            }
            Ok::<_, io::Error>(())
        };
        tokio::select! {
            () = &mut end => return,
            accepted = accept => match accepted {
                Ok(()) => backoff = BACKOFF,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, ?backoff, "cannot accept");
                    counter!(names::DROPPED, "reason" => "accept").increment(1);
                    tokio::select! {
                        () = &mut end => return,
                        () = sleep(backoff) => backoff = (backoff * 2).min(Duration::from_secs(1)),
                    }
                }
            }
        }
    }
}

/// Returns whether a failed accept is the fault of one connection, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
