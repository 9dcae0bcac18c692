//! What one connection asks before it is a socket, and the answers.
use std::{
    future::{Future, Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    header,
    http::{Extensions, request::Parts},
    service::Service,
};

use super::{
    HttpHooks,
    handshake::{self, UpgradeError},
    listener::{ListenerContext, upgraded},
    origins::is_loopback_page,
};

/// Of a refused origin so many characters are logged.
const SHOWN: usize = 100;

/// Answers the requests of one connection, and keeps the head of the one that is upgraded.
#[derive(Debug)]
pub(super) struct UpgradeService<C, F> {
    house: Arc<ListenerContext<C, F>>,
    remote: SocketAddr,
    holds: Mutex<Extensions>,
    head: Mutex<Option<Parts>>,
    /// Whether a whole head came: what ends the connection later is nobody's failed upgrade.
    asked: AtomicBool,
}

impl<C, F: HttpHooks> UpgradeService<C, F> {
    /// For a connection from there, with what it holds so far.
    pub(super) fn new(house: Arc<ListenerContext<C, F>>, remote: SocketAddr, holds: Extensions) -> Self {
        Self { house, remote, holds: Mutex::new(holds), head: Mutex::default(), asked: AtomicBool::new(false) }
    }

    /// The head that is upgraded, once.
    pub(super) fn upgraded(&self) -> Option<Parts> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a whole head came.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Says which page was refused, and how it would be let in. It is a stranger's text: short, without control characters.
    fn log_origin(&self, request: &Request<Incoming>) {
        if let Some(held_back) = self.house.origin_log.pass() {
            let origin = request.headers().get(header::ORIGIN).map(|origin| origin.as_bytes().escape_ascii());
            let origin: String = origin.into_iter().flatten().take(SHOWN).map(char::from).collect();
            tracing::info!(origin, held_back, "a page was refused; ROLLCALL_ORIGINS would let it in");
        }
    }

    fn upgrade(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let options = &self.house.options;
        match handshake::check(&request, &options.origins) {
            // The origin is checked last.
            Err(UpgradeError::Origin) if options.loopback_pages && is_loopback_page(request.headers()) => {}
            Err(refusal) => {
                upgraded(refusal.outcome());
                if refusal == UpgradeError::Origin {
                    self.log_origin(&request);
                }
                return refusal.response();
            }
            Ok(()) => {}
        }
        let response = handshake::accept(&request);
        let (mut head, _) = request.into_parts();
        head.extensions.extend(std::mem::take(&mut *self.holds.lock().unwrap_or_else(PoisonError::into_inner)));
        match self.house.front.upgrade(self.remote, &mut head) {
            Ok(()) => {
                *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
                response
            }
            Err(refusal) => {
                upgraded("refused");
                *self.holds.lock().unwrap_or_else(PoisonError::into_inner) = head.extensions;
                *refusal
            }
        }
    }
}

impl<C: Send + 'static, F: HttpHooks> Service<Request<Incoming>> for UpgradeService<C, F> {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.asked.store(true, Ordering::Relaxed);
        if request.uri().path() == self.house.options.path {
            Answer::Now(ready(self.upgrade(request)))
        } else {
            let (house, remote) = (Arc::clone(&self.house), self.remote);
            Answer::Later(Box::pin(async move { house.front.other(remote, request).await }))
        }
    }
}

/// An upgrade's answer costs no allocation.
pub(super) enum Answer {
    Now(Ready<Response<Full<Bytes>>>),
    Later(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Full<Bytes>>, std::convert::Infallible>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(answer) => Pin::new(answer).poll(context).map(Ok),
            Self::Later(answer) => answer.as_mut().poll(context).map(Ok),
        }
    }
}
