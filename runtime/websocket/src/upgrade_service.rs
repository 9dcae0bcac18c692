//! Answers the HTTP requests of one connection until one is upgraded.
use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    http::{Extensions, request::Parts},
    service::Service,
};

use crate::{
    handshake::{self, UpgradeError},
    http_hooks::HttpHooks,
    listener_context::{ListenerContext, count_upgrade},
};

/// The service of one connection; it keeps the head of the request that is upgraded.
pub(crate) struct UpgradeService<C, H> {
    context: Arc<ListenerContext<C, H>>,
    remote: SocketAddr,
    held: RefCell<Extensions>,
    upgraded: RefCell<Option<Parts>>,
    had_request: Cell<bool>,
}

impl<C, H: HttpHooks> UpgradeService<C, H> {
    /// For a connection from `remote`, with what [`HttpHooks::admit`] put into `held`.
    pub(crate) fn new(context: Arc<ListenerContext<C, H>>, remote: SocketAddr, held: Extensions) -> Self {
        let (held, upgraded) = (RefCell::new(held), RefCell::default());
        Self { context, remote, held, upgraded, had_request: Cell::new(false) }
    }

    /// Takes the head of the request that was upgraded.
    pub(crate) fn take_upgraded(&self) -> Option<Parts> {
        self.upgraded.take()
    }

    /// Whether a whole head came. If so, the end of the connection is not counted as a failed upgrade.
    pub(crate) fn had_request(&self) -> bool {
        self.had_request.get()
    }

    fn upgrade(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let options = &self.context.options;
        match handshake::check(&request, &options.origins) {
            // The origin is checked last, so all other checks have passed.
            Err(UpgradeError::Origin) if options.allows_origin(request.headers()) => {}
            Err(error) => {
                count_upgrade(error.outcome());
                if error == UpgradeError::Origin {
                    self.context.log_origin(request.headers());
                }
                return error.response();
            }
            Ok(()) => {}
        }
        let response = handshake::accept(&request);
        let (mut head, _) = request.into_parts();
        head.extensions.extend(self.held.take());
        match self.context.hooks.upgrade(self.remote, &mut head) {
            Ok(()) => {
                self.upgraded.replace(Some(head));
                response
            }
            Err(refusal) => {
                count_upgrade("refused");
                self.held.replace(head.extensions);
                *refusal
            }
        }
    }
}

impl<C: Send + 'static, H: HttpHooks> Service<Request<Incoming>> for UpgradeService<C, H> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    /// An upgrade's response needs no allocation.
    type Future =
        Either<Ready<Result<Self::Response, Infallible>>, BoxFuture<'static, Result<Self::Response, Infallible>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.had_request.set(true);
        if request.uri().path() == self.context.options.path {
            Either::Left(ready(Ok(self.upgrade(request))))
        } else {
            let (context, remote) = (Arc::clone(&self.context), self.remote);
            Either::Right(Box::pin(async move { Ok(context.hooks.other(remote, request).await) }))
        }
    }
}
