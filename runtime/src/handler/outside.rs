//! Clients that were let in without a classroom (PROTOCOL 11), and the functions for them.
//!
//! Invariant: such a client has no row, no event and no room. It gets all of them together, through the one event that
//! a table has for this, or none of them.
use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use rollcall_schema::{
    AckError, AgentId, AgentLabel, Answer, Audience, LessonId, Offset, Request, ResumeId, UserId, ack::Reply,
    request::Token,
};
use serde::de::DeserializeOwned;

use super::{
    connect_context::ConnectContext,
    connected::Connected,
    error::{ConnectError, HandlerError, Refused},
    invocation::{answered, contained, let_in},
    session::Session,
};
use crate::{auth::Claims, limits::network::Subscriber};

/// The label of clients that name none.
pub const LABEL: &str = "web";

/// A client without a classroom.
#[derive(Debug)]
pub struct Visitor {
    /// The claims of the client's token. `None` for a guest.
    pub claims: Option<Claims>,
    /// The label of the client's agent.
    pub label: AgentLabel,
    /// The lesson to join if a join names none.
    pub lesson: Option<LessonId>,
    /// Whether the client asked for the list of agents of the classroom that it will enter.
    pub roster: bool,
    /// The id under which the client finds its session again after a break.
    pub resume_id: Option<ResumeId>,
}

impl Visitor {
    /// Returns `sub` and `aud` of the client's token.
    #[must_use]
    pub fn user(&self) -> Option<(UserId, Audience)> {
        self.claims.as_ref().map(|claims| (claims.user.clone(), claims.audience.clone()))
    }
}

impl Visitor {
    /// Returns the client of a session that moves to another classroom. A guest gets the default label, because its
    /// session has none.
    ///
    /// # Panics
    /// Never, because the default label is valid.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        let label = session.agent_id().map(AgentId::label);
        let label = label.unwrap_or_else(|| AgentLabel::parse(LABEL).expect("a label"));
        Self {
            claims: session.claims(),
            label,
            lesson: session.url_lesson.clone(),
            roster: false,
            resume_id: session.membership.resume_id(),
        }
    }
}

/// The result for a client that asked for a lesson.
#[derive(Debug)]
pub enum EnterOutcome {
    /// The client is in the lesson's classroom. If it resumes, the offset is the one after which it gets the lesson's
    /// events.
    Entered(Box<Connected>, Option<Offset>),
    /// The client stays without a classroom.
    Outside(Box<Visitor>),
}

/// The handler that checks a token: `async fn(&Deps, client's address, token) -> Result<claims, ConnectError>`.
pub trait Admit<'a, D: 'a>: Send + Sync {
    /// The handler's result. The claims are `None` for a guest.
    type Future: Future<Output = Result<Option<Claims>, ConnectError>> + Send + 'a;
    /// Calls the handler.
    fn call(&self, deps: &'a D, client: Option<Subscriber>, token: Option<Token>) -> Self::Future;
}

impl<'a, D: 'a, F, Fut> Admit<'a, D> for F
where
    F: Fn(&'a D, Option<Subscriber>, Option<Token>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Option<Claims>, ConnectError>> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, client: Option<Subscriber>, token: Option<Token>) -> Fut {
        self(deps, client, token)
    }
}

/// The result for a client that joined a lesson, perhaps in another classroom.
#[derive(Debug)]
pub struct Moved {
    /// The session that the client had.
    pub session: Box<Session>,
    /// The session that the client has instead, if it moved.
    pub instead: Option<Box<Connected>>,
    /// The offset after which the client gets the lesson's events, if it resumes and has joined a lesson.
    pub begins: Option<Offset>,
}

/// The handler that moves a client: `async fn(&Deps, context, &mut Session, Request) -> Result<(Option<Connected>,
/// Answer), HandlerError>`. The result has the session in the other classroom if the client moved.
pub trait Move<'a, D: 'a, R, A>: Send + Sync {
    /// The handler's result.
    type Future: Future<Output = Result<(Option<Connected>, A), HandlerError>> + Send + 'a;
    /// Calls the handler.
    fn call(&self, deps: &'a D, context: ConnectContext, session: &'a mut Session, request: R) -> Self::Future;
}

impl<'a, D: 'a, R, A, F, Fut> Move<'a, D, R, A> for F
where
    F: Fn(&'a D, ConnectContext, &'a mut Session, R) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(Option<Connected>, A), HandlerError>> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, context: ConnectContext, session: &'a mut Session, request: R) -> Fut {
        self(deps, context, session, request)
    }
}

/// The handler that lets a client enter: `async fn(&Deps, context, &Visitor, Request) -> Result<(Connected, Answer),
/// HandlerError>`.
pub trait Enter<'a, D: 'a, R, A>: Send + Sync {
    /// The handler's result.
    type Future: Future<Output = Result<(Connected, A), HandlerError>> + Send + 'a;
    /// Calls the handler.
    fn call(&self, deps: &'a D, context: ConnectContext, visitor: &'a Visitor, request: R) -> Self::Future;
}

impl<'a, D: 'a, R, A, F, Fut> Enter<'a, D, R, A> for F
where
    F: Fn(&'a D, ConnectContext, &'a Visitor, R) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(Connected, A), HandlerError>> + Send + 'a,
{
    type Future = Fut;
    fn call(&self, deps: &'a D, context: ConnectContext, visitor: &'a Visitor, request: R) -> Fut {
        self(deps, context, visitor, request)
    }
}

type AdmitFn = Arc<
    dyn Fn(Option<Subscriber>, Option<Token>, Duration) -> BoxFuture<'static, Result<Option<Claims>, Refused>>
        + Send
        + Sync,
>;
/// The result of a call that may enter a classroom.
pub type Entering = BoxFuture<'static, (EnterOutcome, Answer)>;
type EnterFn = Arc<
    dyn Fn(ConnectContext, Box<Visitor>, &Request<'_>, Duration) -> Result<Entering, (Box<Visitor>, Answer)>
        + Send
        + Sync,
>;

/// The result of a call that may move to another classroom.
pub type Moving = BoxFuture<'static, (Moved, Answer)>;
type MoveFn = Arc<
    dyn Fn(ConnectContext, Box<Session>, &Request<'_>, Duration) -> Result<Moving, (Box<Session>, Answer)>
        + Send
        + Sync,
>;

/// The three functions for clients without a classroom.
#[derive(Clone)]
pub(super) struct Outside {
    event: &'static str,
    admit: AdmitFn,
    enter: EnterFn,
    change: MoveFn,
}

impl Outside {
    pub(super) fn new<C, D, R, A>(
        (admit_deps, admit): (C, impl for<'a> Admit<'a, C> + 'static),
        (event, enter_deps, enter, change): (
            &'static str,
            D,
            impl for<'a> Enter<'a, D, R, A> + 'static,
            impl for<'a> Move<'a, D, R, A> + 'static,
        ),
    ) -> Self
    where
        C: Send + Sync + 'static,
        D: Send + Sync + 'static,
        R: DeserializeOwned + Send + 'static,
        A: Into<Reply> + Send + 'static,
    {
        let admit = Arc::new((admit_deps, admit));
        let enter = Arc::new((enter_deps, enter, change));
        let change = Arc::clone(&enter);
        Self {
            event,
            admit: Arc::new(move |client, token, timeout| {
                let function = Arc::clone(&admit);
                let call = async move { function.1.call(&function.0, client, token).await }.boxed();
                let_in(timeout, None, call).boxed()
            }),
            enter: Arc::new(move |context, visitor, request, timeout| {
                let payload = match request.payload::<R>() {
                    Ok(payload) => payload,
                    Err(error) => return Err((visitor, Answer::Error(AckError::InvalidPayload, error.detail))),
                };
                let function = Arc::clone(&enter);
                let trace = context.trace;
                Ok(async move {
                    let call = async { function.1.call(&function.0, context, &visitor, payload).await }.boxed();
                    match answered(contained(event, timeout, trace, call).await) {
                        Ok((connected, reply)) => {
                            let reply: Reply = reply.into();
                            (EnterOutcome::Entered(Box::new(connected), reply.offset()), Answer::Success(reply))
                        }
                        Err(answer) => (EnterOutcome::Outside(visitor), answer),
                    }
                }
                .boxed())
            }),
            change: Arc::new(move |context, mut session, request, timeout| {
                let payload = match request.payload::<R>() {
                    Ok(payload) => payload,
                    Err(error) => return Err((session, Answer::Error(AckError::InvalidPayload, error.detail))),
                };
                let function = Arc::clone(&change);
                let trace = context.trace;
                Ok(async move {
                    let call = async { function.2.call(&function.0, context, &mut session, payload).await }.boxed();
                    let (instead, begins, answer) = match answered(contained(event, timeout, trace, call).await) {
                        Ok((instead, reply)) => {
                            let reply: Reply = reply.into();
                            (instead.map(Box::new), reply.offset(), Answer::Success(reply))
                        }
                        Err(answer) => (None, None, answer),
                    };
                    (Moved { session, instead, begins }, answer)
                }
                .boxed())
            }),
        }
    }

    pub(super) fn event(&self) -> &'static str {
        self.event
    }

    pub(super) fn admit(
        &self,
        client: Option<Subscriber>,
        token: Option<Token>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Option<Claims>, Refused>> {
        (self.admit)(client, token, timeout)
    }

    pub(super) fn enter(
        &self,
        context: ConnectContext,
        visitor: Box<Visitor>,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Entering, (Box<Visitor>, Answer)> {
        (self.enter)(context, visitor, request, timeout)
    }

    pub(super) fn change(
        &self,
        context: ConnectContext,
        session: Box<Session>,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Moving, (Box<Session>, Answer)> {
        (self.change)(context, session, request, timeout)
    }
}
