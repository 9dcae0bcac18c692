//! The listener for operators, with limits on everything that a request may cost.
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
    reply::{HttpError, Streamed, streamed},
    router,
};
use rollcall_websocket::evicting_semaphore::EvictingSemaphore;

/// The maximum of connections; scrapers and scripts need few. One more closes the oldest, so clients that do not read
/// their answers cannot block others.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request's body may take, and how long an answer may take until it begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long the running requests may take when the node ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before another accept where no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` becomes true, and then until the running requests are done, at most for [`DRAIN_TIMEOUT`].
pub async fn serve(admin: Arc<Admin>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = EvictingSemaphore::new(MAX_CONNECTIONS, "operators_full");
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
        // Not in the select: another branch would drop the connection.
        let mut place = places.acquire().await;
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        connections.spawn(async move {
            place.run_until_evicted(serve_connection(admin, (stream, address), stop)).await;
        });
    }
    drop(listener);
    // Connections that are left when time is up are closed with the set.
    drop(tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await);
}

async fn serve_connection(
    admin: Arc<Admin>,
    (stream, address): (TcpStream, SocketAddr),
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, request, address).await) }
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

async fn answer(admin: &Admin, request: hyper::Request<Incoming>, address: SocketAddr) -> Streamed {
    let late = || HttpError::new(hyper::StatusCode::REQUEST_TIMEOUT, "the request took too long");
    let answer = router::answer(admin, request, Some(address));
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| streamed(late().reply()))
}
