//! Answers the HTTP requests of one connection until one is upgraded.
use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{
    TryFutureExt,
    future::{BoxFuture, Either},
};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderValue, RETRY_AFTER},
    http::{Extensions, request::Parts},
    service::Service,
};

use crate::{
    handshake::{self, UpgradeError},
    http_hooks::HttpHooks,
    id::SocketId,
    listener_context::{ListenerContext, count_upgrade},
    options::ListenerOptions,
};

/// What a connection becomes after its last HTTP response.
pub(crate) enum Handover {
    /// A WebSocket.
    WebSocket(Parts),
    /// A WebSocket that begins an Engine.IO session.
    Engine(Parts),
    /// A WebSocket that is to become the transport of this session.
    Probe(SocketId),
    /// A GET of this session, which its worker answers, and lines for the head of its response.
    Get(SocketId, Box<str>),
}

/// The service of one connection. It keeps what the connection becomes.
pub(crate) struct UpgradeService<'a, C, H> {
    pub(crate) context: Arc<ListenerContext<C, H>>,
    pub(crate) options: Arc<ListenerOptions>,
    pub(crate) remote: SocketAddr,
    pub(crate) held: RefCell<Extensions>,
    handover: RefCell<Option<Handover>>,
    had_request: Cell<bool>,
    /// Whether a worker writes the response, so that this service must write none.
    taken_over: &'a AtomicBool,
}

/// The future of a response. For an upgrade it needs no allocation.
pub(crate) type Responding = Either<
    Ready<Result<Response<Full<Bytes>>, Infallible>>,
    BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>>,
>;

impl<'a, C, H: HttpHooks> UpgradeService<'a, C, H> {
    /// Creates the service of a connection from `remote`, with the values that [`HttpHooks::admit`] put into `held`.
    /// `taken_over` is set if a worker writes the response to the present request.
    pub(crate) fn new(
        context: Arc<ListenerContext<C, H>>,
        options: Arc<ListenerOptions>,
        remote: SocketAddr,
        held: Extensions,
        taken_over: &'a AtomicBool,
    ) -> Self {
        let (held, handover) = (RefCell::new(held), RefCell::default());
        Self { context, options, remote, held, handover, had_request: Cell::new(false), taken_over }
    }

    /// Takes what the connection becomes, now that its last response is written.
    pub(crate) fn take_handover(&self) -> Option<Handover> {
        self.handover.take()
    }

    /// Ends HTTP on the connection once the response to this request is written.
    pub(crate) fn hand_over(&self, handover: Handover) {
        self.handover.replace(Some(handover));
    }

    /// Lets the session's worker write the response.
    pub(crate) fn hand_over_now(&self, named: SocketId, headers: Box<str>) -> Responding {
        self.hand_over(Handover::Get(named, headers));
        self.taken_over.store(true, Ordering::Relaxed);
        Either::Right(Box::pin(std::future::pending()))
    }

    /// Returns whether a complete head came. If it did, the end of the connection does not count as a failed upgrade.
    pub(crate) fn had_request(&self) -> bool {
        self.had_request.get()
    }

    fn upgrade(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if self.is_draining() {
            return draining();
        }
        if let Err(error) = self.check(&request) {
            return error.response();
        }
        match self.admit(request) {
            Ok((response, head)) => {
                self.hand_over(Handover::WebSocket(head));
                response
            }
            Err(refusal) => *refusal,
        }
    }

    /// Returns whether the listener accepts no new clients any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.context.draining.load(Ordering::Relaxed)
    }

    /// Returns whether a request may be upgraded. A refusal is counted.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), UpgradeError> {
        let options = &self.options;
        let checked = match handshake::check(request, &options.origins) {
            // The origin is checked last, so all other checks have passed.
            Err(UpgradeError::Origin) if options.allows_origin(request.headers()) => Ok(()),
            checked => checked,
        };
        if let Err(error) = checked {
            count_upgrade(error.outcome());
            if error == UpgradeError::Origin {
                self.context.log_origin(request.headers());
            }
        }
        checked
    }

    /// Asks the application whether it has room for a request that passed [`Self::check`]. Returns the 101 and the
    /// head.
    #[expect(clippy::type_complexity, reason = "a response, or another")]
    pub(crate) fn admit<B>(
        &self,
        request: Request<B>,
    ) -> Result<(Response<Full<Bytes>>, Parts), Box<Response<Full<Bytes>>>> {
        let response = handshake::accept(&request);
        let (mut head, _) = request.into_parts();
        head.extensions.extend(self.held.take());
        match self.context.hooks.upgrade(self.remote, &mut head) {
            Ok(()) => Ok((response, head)),
            Err(refusal) => {
                count_upgrade("refused");
                self.held.replace(head.extensions);
                Err(refusal)
            }
        }
    }
}

impl<C: Send + 'static, H: HttpHooks> Service<Request<Incoming>> for UpgradeService<'_, C, H> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Responding;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.had_request.set(true);
        let responding: Responding = if request.uri().path() == self.options.path {
            Either::Left(ready(Ok(self.upgrade(request))))
        } else if self.is_engine(request.uri().path()) {
            self.engine(request)
        } else {
            let (context, remote) = (Arc::clone(&self.context), self.remote);
            Either::Right(Box::pin(async move { Ok(context.hooks.other(remote, request).await) }))
        };
        match responding {
            Either::Left(done) => {
                let response = done.into_inner().map(|response| self.context.last_if_crowded(response));
                Either::Left(ready(response))
            }
            Either::Right(later) => {
                let context = Arc::clone(&self.context);
                Either::Right(Box::pin(later.map_ok(move |response| context.last_if_crowded(response))))
            }
        }
    }
}

/// Returns the response of a listener that accepts no new clients any more.
pub(crate) fn draining() -> Response<Full<Bytes>> {
    count_upgrade("draining");
    let mut response = Response::new(Full::from("this node ends\n"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
