//! The listeners for operators and for probes, with limits on everything that a request may cost.
use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    admin::Admin,
    probes,
    reply::{HttpError, Streamed, streamed},
    router,
};
use rollcall_websocket::evicting_semaphore::EvictingSemaphore;

/// The maximum number of connections, of which scrapers and scripts need few. A further connection closes the oldest,
/// so clients that do not read their answers cannot block others.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request's body may take, and how long an answer may take until it begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long the running requests may take when the node ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before the next accept if no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The requests that a listener answers.
#[derive(Clone)]
pub enum Surface {
    /// All requests of operators.
    Operators(Arc<Admin>),
    /// Only requests of probes.
    Probes(Arc<Admin>),
}

impl Surface {
    /// Returns the reason for `dropped_total` if the oldest connection is closed for a new one.
    fn when_full(&self) -> &'static str {
        match self {
            Self::Operators(_) => "operators_full",
            Self::Probes(_) => "probes_full",
        }
    }

    async fn answer(&self, request: hyper::Request<Incoming>, address: SocketAddr) -> Streamed {
        match self {
            Self::Operators(admin) => router::answer(admin, request, Some(address)).await,
            Self::Probes(admin) => streamed(probes::answer(&admin.health, &request).await),
        }
    }
}

/// Serves until `stop` becomes true, and then until the running requests are done, at most for [`DRAIN_TIMEOUT`].
pub async fn serve(surface: Surface, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = EvictingSemaphore::new(MAX_CONNECTIONS, surface.when_full());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // The permit is acquired outside of the select, where another branch would drop the connection.
        let mut place = places.acquire().await;
        let (surface, stop) = (surface.clone(), stop.clone());
        connections.spawn(async move {
            place.run_until_evicted(serve_connection(surface, (stream, address), stop)).await;
        });
    }
    drop(listener);
    // The remaining connections are closed with the set when the time is over.
    drop(tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await);
}

async fn serve_connection(
    surface: Surface,
    (stream, address): (TcpStream, SocketAddr),
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let surface = surface.clone();
        async move { Ok::<_, Infallible>(answer(&surface, request, address).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // A client may end its connection in any way.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

async fn answer(surface: &Surface, request: hyper::Request<Incoming>, address: SocketAddr) -> Streamed {
    let late = || HttpError::new(hyper::StatusCode::REQUEST_TIMEOUT, "the request took too long");
    tokio::time::timeout(ANSWER_TIMEOUT, surface.answer(request, address))
        .await
        .unwrap_or_else(|_| streamed(late().reply()))
}
