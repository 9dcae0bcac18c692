//! The HTTP client for issuers' keys, Mixpanel, the authorization service, the webhook, the collector of spans and an
//! app's own functions. A call within a span carries the span's trace.
//!
//! Invariant: a call goes only to the given address. Redirects are not followed, and a proxy is used only as [`egress`]
//! says. A call takes at most the client's timeout, and reads at most as many bytes as the caller allows.
pub mod egress;
mod failure;
#[cfg(test)]
pub(crate) mod fixture;
mod proxy;
pub mod signature;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderValue},
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

use self::egress::{Connector, Egress};
use crate::trace;
use rollcall_base::Secret;

/// How many idle connections are kept by default.
const IDLE_CONNECTIONS: usize = 8;

/// How long a connection may be idle by default before it is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be idle if its calls have a single attempt. This is shorter than the five seconds after
/// which Node and uvicorn close a connection, so a call hardly ever begins on a connection that is being closed.
const IDLE_TIMEOUT_OF_SINGLE_ATTEMPTS: Duration = Duration::from_secs(4);

/// How long one call may take in total by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the body of an answer is read if only its status counts. The body is read so that the connection can be
/// kept.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// The largest head of an answer, in bytes, and how many bytes are read at once. A server that sends endless heads
/// (1xx) keeps a thread busy only for as long as this many bytes take to parse.
const MAX_HEAD: usize = 16 << 10;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There was no complete answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("{0}")]
    Connection(String),
    /// The status is not a success. Redirects are not followed.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// The answer is too large or incomplete.
    #[error("its answer is too large or broke off")]
    Body,
}

/// A pool of connections. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pool: legacy::Client<Connector, Full<Bytes>>,
    egress: Egress,
    timeout: Duration,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// Creates a client whose requests are sent as `egress` says.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self::with_idle_connections(egress, IDLE_CONNECTIONS)
    }

    /// Creates a client that keeps `idle` connections that are not in use.
    #[must_use]
    pub fn with_idle_connections(egress: &Egress, idle: usize) -> Self {
        Self::build(egress, idle, IDLE_TIMEOUT, true)
    }

    /// Creates a client for calls that must not be sent twice: a call fails if its connection turns out to be closed.
    /// Other clients send such a call once more on another connection.
    #[must_use]
    pub fn with_single_attempts(egress: &Egress, idle: usize) -> Self {
        Self::build(egress, idle, IDLE_TIMEOUT_OF_SINGLE_ATTEMPTS, false)
    }

    fn build(egress: &Egress, idle: usize, idle_timeout: Duration, retry: bool) -> Self {
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(idle_timeout)
            .retry_canceled_requests(retry)
            .http1_max_buf_size(MAX_HEAD)
            .build(egress.connector());
        Self { pool, egress: egress.clone(), timeout: TIMEOUT, authorization: None }
    }

    /// Sets the timeout of a call.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets the bearer token of every call. A token that no header can carry is not sent. The configuration refuses
    /// such a token.
    #[must_use]
    pub fn bearer(self, token: Option<&Secret>) -> Self {
        let value = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {}", token.reveal())).ok());
        let authorization = value.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { authorization, ..self }
    }

    /// Gets a document of at most `max` bytes.
    ///
    /// # Errors
    /// Returns a [`FetchError`] if the call failed or its status is not 200.
    pub async fn get(&self, url: Uri, max: usize) -> Result<Bytes, FetchError> {
        match self.send(Method::GET, url, HeaderMap::new(), Bytes::new(), max).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(FetchError::Status(status)),
        }
    }

    /// Sends a request, whose body is JSON or empty. Returns the status, and the answer if it has at most `max` bytes.
    ///
    /// # Errors
    /// Returns a [`FetchError`] if there was no complete answer.
    pub async fn send(
        &self,
        method: Method,
        url: Uri,
        headers: HeaderMap,
        json: Bytes,
        max: usize,
    ) -> Result<(StatusCode, Bytes), FetchError> {
        let request = self.request(method, url, headers, json)?;
        let answer = async {
            let answer = self.begin(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), max).collect().await.map_err(|_| FetchError::Body)?;
            Ok((status, body.to_bytes()))
        };
        timeout(self.timeout, answer).await.map_err(|_| FetchError::Timeout(self.timeout))?
    }

    /// Posts JSON, and returns the status as soon as it has come. At most `max` bytes of the body are read, so that the
    /// connection can be kept. The length and the end of the body do not change the result.
    ///
    /// # Errors
    /// Returns a [`FetchError`] if no answer began.
    pub async fn post_for_status(
        &self,
        url: Uri,
        headers: HeaderMap,
        json: Bytes,
        max: usize,
    ) -> Result<StatusCode, FetchError> {
        let request = self.request(Method::POST, url, headers, json)?;
        let answer = timeout(self.timeout, self.begin(request)).await;
        let answer = answer.map_err(|_| FetchError::Timeout(self.timeout))??;
        let status = answer.status();
        drop(timeout(DISCARD_TIMEOUT, Limited::new(answer.into_body(), max).collect()).await);
        Ok(status)
    }

    /// Begins to get a document of any length. The client's timeout applies until the answer begins.
    ///
    /// # Errors
    /// Returns a [`FetchError`] if no answer begins.
    pub async fn open(&self, url: Uri) -> Result<Response<Incoming>, FetchError> {
        let request = self.request(Method::GET, url, HeaderMap::new(), Bytes::new())?;
        timeout(self.timeout, self.begin(request)).await.map_err(|_| FetchError::Timeout(self.timeout))?
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, FetchError> {
        self.pool.request(request).await.map_err(|error| FetchError::Connection(failure::explain(&error)))
    }

    fn request(
        &self,
        method: Method,
        url: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, FetchError> {
        let to_proxy = self.egress.proxy_authorization(&url);
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::USER_AGENT, concat!("rollcall/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            // The keys may just have been rotated, and a cache on the way would have the old keys.
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::ACCEPT, "application/json, text/plain;q=0.5, */*;q=0.1")
            .body(Full::new(body))
            .map_err(|error| FetchError::Connection(error.to_string()))?;
        request.headers_mut().extend(trace::header(trace::outgoing(None)));
        request.headers_mut().extend(headers);
        if let Some(to_proxy) = to_proxy {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, to_proxy);
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }
}
