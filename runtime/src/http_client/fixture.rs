//! A server on loopback for tests of HTTP clients. It counts connections and keeps requests.
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

/// How the server answers a request.
pub(crate) enum Reply {
    /// The server answers.
    Answer(StatusCode, String),
    /// The server redirects to this address.
    Moved(Uri),
    /// The server never answers.
    Hang,
    /// The server closes the connection instead of answering.
    Close,
}

/// A request as the server received it.
pub(crate) struct Seen {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The server. It ends when it is dropped.
pub(crate) struct Fixture {
    pub(crate) address: SocketAddr,
    pub(crate) requests: mpsc::UnboundedReceiver<Seen>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fixture {
    /// Starts a server that answers the request of each number (from 0) with the result of `reply`.
    pub(crate) async fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let reply = Arc::new(reply);
        let served = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (reply, seen, served) = (Arc::clone(&reply), seen.clone(), Arc::clone(&served));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (reply, seen, served) = (Arc::clone(&reply), seen.clone(), Arc::clone(&served));
                    async move { serve(request, &*reply, &seen, &served).await }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, requests, connections, task }
    }

    pub(crate) fn url(&self, path: &str) -> Uri {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Returns how many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns the next request, which must come within 10 s.
    pub(crate) async fn next(&mut self) -> Seen {
        soon(self.requests.recv()).await.expect("the server lives as long as the fixture")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits at most 10 s for the future.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(10), future).await.expect("it happens within 10 s")
}

#[derive(Debug, thiserror::Error)]
#[error("the test closes the connection")]
struct Closed;

async fn serve(
    request: Request<Incoming>,
    reply: &impl Fn(usize) -> Reply,
    seen: &mpsc::UnboundedSender<Seen>,
    served: &AtomicUsize,
) -> Result<Response<Full<Bytes>>, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let number = served.fetch_add(1, Ordering::SeqCst);
    // The receiver is gone when the test is over.
    drop(seen.send(Seen { uri: head.uri, headers: head.headers, body }));
    match reply(number) {
        Reply::Answer(status, body) => {
            Ok(Response::builder().status(status).body(Full::new(body.into())).map_err(|_| Closed)?)
        }
        Reply::Moved(to) => Ok(Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, to.to_string())
            .body(Full::default())
            .map_err(|_| Closed)?),
        Reply::Hang => match std::future::pending::<Infallible>().await {},
        Reply::Close => Err(Closed),
    }
}
