//! The traits of async functions that handle events. Plain functions whose first argument is their dependencies
//! implement them.
use std::future::Future;

use rollcall_schema::{ConnectRequest, LeftReason};

use crate::handler::{
    connect_context::ConnectContext,
    connected::Connected,
    error::{ConnectError, HandlerError},
    session::Session,
};

/// A handler of an event: `async fn(&Deps, &mut Session, Request) -> Result<Answer, HandlerError>`.
pub trait Handler<'a, D: 'a, R, A>: Send + Sync {
    /// The handler's result.
    type Future: Future<Output = Result<A, HandlerError>> + Send + 'a;
    /// Calls the handler.
    fn call(&self, deps: &'a D, session: &'a mut Session, request: R) -> Self::Future;
}

impl<'a, D: 'a, R, A, F, Fut> Handler<'a, D, R, A> for F
where
    F: Fn(&'a D, &'a mut Session, R) -> Fut + Send + Sync,
    Fut: Future<Output = Result<A, HandlerError>> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, session: &'a mut Session, request: R) -> Fut {
        self(deps, session, request)
    }
}

/// The handler of connect, which creates a session or refuses the client.
pub trait Connect<'a, D: 'a>: Send + Sync {
    /// The handler's result.
    type Future: Future<Output = Result<Connected, ConnectError>> + Send + 'a;
    /// Calls the handler.
    fn call(&self, deps: &'a D, context: ConnectContext, request: ConnectRequest) -> Self::Future;
}

impl<'a, D: 'a, F, Fut> Connect<'a, D> for F
where
    F: Fn(&'a D, ConnectContext, ConnectRequest) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Connected, ConnectError>> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, context: ConnectContext, request: ConnectRequest) -> Fut {
        self(deps, context, request)
    }
}

/// The handler of disconnect, which ends a session.
pub trait Disconnect<'a, D: 'a>: Send + Sync {
    /// The handler's result.
    type Future: Future<Output = ()> + Send + 'a;
    /// Calls the handler.
    fn call(&self, deps: &'a D, session: Session, reason: LeftReason) -> Self::Future;
}

impl<'a, D: 'a, F, Fut> Disconnect<'a, D> for F
where
    F: Fn(&'a D, Session, LeftReason) -> Fut + Send + Sync,
    Fut: Future<Output = ()> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, session: Session, reason: LeftReason) -> Fut {
        self(deps, session, reason)
    }
}
