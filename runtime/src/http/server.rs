//! The listener for operators: hyper with bounds on everything that a request may cost.
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    admin::Admin,
    reply::{HttpError, Reply},
};
use rollcall_websocket::evicting_semaphore::EvictingSemaphore;

/// Connections at once; scrapers and scripts need few. One more ends the oldest: who does not read its answers is in
/// nobody's way.
pub(super) const CONNECTIONS: usize = 256;
/// For the head of a request, and between two requests: who is idle is in the way of a probe for no longer.
const HEAD: Duration = Duration::from_secs(5);
/// For a request's body and its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest head.
const HEAD_BYTES: usize = 16 * 1024;
/// For the requests under way when the node ends.
const GOODBYE: Duration = Duration::from_secs(1);
/// Before another accept where there are no file descriptors left.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `stop` becomes true, and then for as long as the requests under way need, at most [`GOODBYE`].
pub async fn serve(admin: Arc<Admin>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = EvictingSemaphore::new(CONNECTIONS, "operators_full");
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        // Not in the select, whose other ends would cost the connection.
        let mut place = places.take().await;
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        connections.spawn(async move {
            place.until_needed(converse(admin, stream, stop)).await;
        });
    }
    drop(listener);
    // What is left when time is up ends with the set.
    drop(tokio::time::timeout(GOODBYE, async { while connections.join_next().await.is_some() {} }).await);
}

async fn converse(admin: Arc<Admin>, stream: TcpStream, mut stop: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // How a client's connection ends is its own affair.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

async fn answer(admin: &Admin, request: hyper::Request<Incoming>) -> Reply {
    let late = || HttpError::new(hyper::StatusCode::REQUEST_TIMEOUT, "the request took too long").reply();
    tokio::time::timeout(ANSWER, admin.answer(request)).await.unwrap_or_else(|_| late())
}
