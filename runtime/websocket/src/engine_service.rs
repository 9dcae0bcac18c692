//! Answers the HTTP requests of Engine.IO: handshakes, GETs, POSTs, and WebSocket upgrades.
//!
//! Invariant: a request of a page with a refused origin gets only a refusal. A body is read only for an existing
//! session, one at a time. A response to a page with an allowed origin has the headers that let the page read it, even
//! if it is an error.
use std::{future::ready, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, CONTENT_TYPE, HeaderMap,
        HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL, VARY,
    },
};
use metrics::counter;
use rollcall_base::names;
use rollcall_socketio::engine::{Query, RequestError, Transport};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    application::Upgrade,
    engine_request::EngineRequest,
    handshake::{self, UpgradeError},
    http_hooks::HttpHooks,
    id::SocketId,
    listener_context::{ListenerContext, count_upgrade},
    polling_session::Post,
    upgrade_service::{Handover, Responding, UpgradeService, draining},
    workers::Workers,
};

type Reply = Response<Full<Bytes>>;

impl<C: Send + 'static, H: HttpHooks> UpgradeService<'_, C, H> {
    /// Returns whether this is the path of Engine.IO.
    pub(crate) fn is_engine(&self, path: &str) -> bool {
        let ours = self.options.engine_path.as_deref();
        ours.is_some_and(|ours| path.strip_suffix('/').unwrap_or(path) == ours)
    }

    /// Answers a request for the path of Engine.IO.
    pub(crate) fn engine(&self, request: Request<Incoming>) -> Responding {
        let page = Page::of(request.headers());
        if handshake::asks_for_websocket(request.headers()) {
            return now(self.engine_websocket(request));
        }
        if !self.options.allows_origin(request.headers()) {
            self.context.log_origin(request.headers());
            return now(Page(None).mark(refusal(RequestError::Forbidden)));
        }
        if request.method() == Method::OPTIONS {
            return now(page.preflight(request.headers()));
        }
        let named = match self.engine_session(&request, Transport::Polling) {
            Err(error) => return now(page.mark(refusal(error))),
            Ok(None) if self.is_draining() => return now(page.mark(draining())),
            Ok(None) => return self.engine_handshake(request, page),
            Ok(Some(named)) => named,
        };
        match *request.method() {
            Method::GET => self.hand_over_now(named, page.lines()),
            Method::POST => {
                let context = Arc::clone(&self.context);
                Either::Right(Box::pin(async move { Ok(page.mark(post(&context, named, request).await)) }))
            }
            _ => now(page.mark(refusal(RequestError::BadRequest))),
        }
    }

    /// Returns the session that a request by this transport is for, or `None` if it asks for a new session.
    fn engine_session(
        &self,
        request: &Request<Incoming>,
        transport: Transport,
    ) -> Result<Option<SocketId>, RequestError> {
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let Some(sid) = &query.sid else {
            query.check_handshake(request.method() == Method::GET, transport)?;
            return Ok(None);
        };
        let Some(named) = self.context.workers.engine().socket(sid) else {
            counter!(names::DROPPED, "reason" => "unknown_sid").increment(1);
            return Err(RequestError::UnknownSession);
        };
        query.check_request(transport)?;
        Ok(Some(named))
    }

    /// Begins a session by long-polling.
    fn engine_handshake(&self, request: Request<Incoming>, page: Page) -> Responding {
        let (mut head, _) = request.into_parts();
        // The HTTP connection goes on, and counts in addition to its session.
        head.extensions.extend(self.held.borrow().clone());
        if let Err(refused) = self.context.hooks.upgrade(self.remote, &mut head) {
            count_upgrade("refused");
            self.held.replace(head.extensions);
            return now(page.mark(*refused));
        }
        let (context, upgrade) = (Arc::clone(&self.context), Upgrade { remote: self.remote, head: Box::new(head) });
        Either::Right(Box::pin(async move {
            let opened = context.workers.open_polling(upgrade).await;
            count_upgrade(if opened.is_some() { "accepted" } else { "lost" });
            Ok(page.mark(match opened {
                Some(packet) => text(packet),
                None => refusal(RequestError::BadRequest),
            }))
        }))
    }

    /// Answers the request for a WebSocket, which begins a session or becomes the transport of one.
    fn engine_websocket(&self, request: Request<Incoming>) -> Reply {
        let named = match self.engine_session(&request, Transport::WebSocket) {
            Ok(named) => named,
            Err(error) => return refused_upgrade(error),
        };
        if named.is_none() && self.is_draining() {
            return draining();
        }
        match self.check(&request) {
            Ok(()) => {}
            Err(UpgradeError::Origin) => return refused_upgrade(RequestError::Forbidden),
            Err(_) => return refused_upgrade(RequestError::BadRequest),
        }
        let protocol = handshake::first_protocol(request.headers());
        let mut response = match named {
            Some(named) => {
                self.hand_over(Handover::Probe(named));
                handshake::accept(&request)
            }
            None => match self.admit(request) {
                Ok((response, head)) => {
                    self.hand_over(Handover::Engine(head));
                    response
                }
                Err(refused) => return *refused,
            },
        };
        if let Some(protocol) = protocol {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

/// Answers a POST of a session.
async fn post<C: Send + 'static, H>(
    context: &ListenerContext<C, H>,
    named: SocketId,
    request: Request<Incoming>,
) -> Reply {
    let is_binary = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/octet-stream");
    if request.headers().get(CONTENT_TYPE).is_some_and(is_binary) {
        return refusal(RequestError::BadRequest);
    }
    match try_post(&context.workers, named, request, context.options().http_timeout).await {
        Ok(()) => text("ok".into()),
        Err(PostError::Request(error)) => refusal(error),
        Err(PostError::TooLarge) => status(StatusCode::PAYLOAD_TOO_LARGE),
    }
}

enum PostError {
    Request(RequestError),
    TooLarge,
}

impl From<RequestError> for PostError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

async fn try_post<C: Send + 'static>(
    workers: &Workers<C>,
    named: SocketId,
    request: Request<Incoming>,
    limit: Duration,
) -> Result<(), PostError> {
    let gone = RequestError::UnknownSession;
    let (answer, begins) = oneshot::channel();
    workers.ask_session(named, EngineRequest::PostBegins { named, answer }).await.map_err(|_| gone)?;
    begins.await.map_err(|_| gone)??;
    let mut guard = PostGuard { workers, named, broke: Some(true) };
    let body = timeout(limit, Limited::new(request.into_body(), workers.engine().max_payload()).collect()).await;
    let body = match body {
        Ok(Ok(body)) => String::from_utf8(body.to_bytes().into()).map_err(|_| RequestError::BadRequest)?,
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            guard.broke = Some(false);
            return Err(PostError::TooLarge);
        }
        Ok(Err(_)) | Err(_) => return Err(RequestError::BadRequest.into()),
    };
    guard.broke = None;
    let (answer, handled) = oneshot::channel();
    let post = Post { body, handled: 0, answer };
    workers.ask_session(named, EngineRequest::Post { named, post }).await.map_err(|_| gone)?;
    handled.await.map_err(|_| gone)?.map_err(Into::into)
}

/// Tells the session if a POST ends without its body, even if the request's task is dropped.
struct PostGuard<'a, C: Send + 'static> {
    workers: &'a Workers<C>,
    named: SocketId,
    /// Whether the connection broke. `None` once the body has come.
    broke: Option<bool>,
}

impl<C: Send + 'static> Drop for PostGuard<'_, C> {
    fn drop(&mut self) {
        if let Some(broke) = self.broke {
            self.workers.tell_session(self.named, EngineRequest::PostFailed { named: self.named, broke });
        }
    }
}

/// The origin of the page that a request comes from, which may read the response.
struct Page(Option<HeaderValue>);

impl Page {
    fn of(headers: &HeaderMap) -> Self {
        Self(headers.get(ORIGIN).cloned())
    }

    fn mark(&self, mut response: Reply) -> Reply {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = &self.0 {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        response
    }

    /// Returns the headers for the page, as lines of a head.
    fn lines(&self) -> Box<str> {
        let origin = self.0.as_ref().and_then(|origin| origin.to_str().ok());
        let allow = origin.map(|origin| {
            format!("Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n")
        });
        format!("Vary: Origin\r\n{}", allow.unwrap_or_default()).into()
    }

    fn preflight(&self, asked: &HeaderMap) -> Reply {
        let mut response = self.mark(status(StatusCode::NO_CONTENT));
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,POST"));
        if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        response
    }
}

fn now(response: Reply) -> Responding {
    Either::Left(ready(Ok(response)))
}

fn status(status: StatusCode) -> Reply {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn text(body: String) -> Reply {
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

fn refusal(error: RequestError) -> Reply {
    let mut response = Response::new(Full::from(error.body()));
    *response.status_mut() = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns the refusal of a WebSocket. Its clients show the text if anything.
fn refused_upgrade(error: RequestError) -> Reply {
    count_upgrade("engine");
    let mut response = text(error.to_string());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
